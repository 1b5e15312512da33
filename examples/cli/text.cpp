// Formats figures and names for people.
#include "text.hpp"

#include <algorithm>
#include <cstdio>
#include <new>

namespace cli {

namespace io = deltadct::io;

double per_weight(std::uint64_t bytes, std::uint64_t elements) {
  return elements == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

/// "12 delta, 3 same": the modes that occur.
std::string modes_text(const io::CheckpointReport& report) {
  std::string text;
  for (const io::Mode mode : io::kModes) {
    if (report.count(mode) == 0) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(report.count(mode)) + " " +
            std::string(io::mode_name(mode));
  }
  return text.empty() ? "none" : text;
}

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < std::size(units); ++unit) bytes /= 1000;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
  return text;
}

std::string recovery_text(const io::Recovery& recovery) {
  char text[64];
  std::snprintf(text, sizeof text, "gain %.4f, SNR %.2f dB", recovery.gain(), recovery.snr_db());
  return text;
}

void print_json(const nlohmann::json& result) {
  const std::string text =
      result.dump(2, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void warn(const io::Warning& warning) {
  std::fprintf(stderr, "deltadct: warning: %s: %s\n",
               deltadct::printable(warning.where, deltadct::kLongestText).c_str(),
               deltadct::printable(warning.what, deltadct::kLongestText).c_str());
}

void warn(std::span<const io::Warning> warnings) {
  // A model has hundreds of similar tensors, so the first warnings stand for the others. They never
  // stand for a greater loss.
  constexpr std::size_t kMost = 20;
  for (const io::Loss loss : {io::Loss::weights, io::Loss::beside, io::Loss::none}) {
    std::size_t count = 0;
    for (const io::Warning& warning : warnings) {
      if (warning.loss == loss && count++ < kMost) warn(warning);
    }
    if (count <= kMost) continue;
    std::fprintf(stderr, "deltadct: warning: and %zu more%s\n", count - kMost,
                 loss == io::Loss::weights  ? " losses of weights"
                 : loss == io::Loss::beside ? " things that are left out"
                                            : "");
  }
}

bool flush_results() {
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  std::clearerr(stdout);
  return flushed;
}

void tell_of_output(const std::function<void()>& print) {
  bool told = false;
  try {
    print();
    told = flush_results();
  } catch (const std::bad_alloc&) {
  }
  if (!told) {
    std::fputs("deltadct: warning: stdout: the summary was not written; the output is complete\n",
               stderr);
  }
}

}  // namespace cli
