// Progress on stderr.
#include "progress.hpp"

#include "text.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace cli {

namespace {

// A terminal is redrawn often enough to look alive; a log gets a line now and then.
constexpr double kTerminalInterval = 0.1;
constexpr double kLogInterval = 5;

constexpr std::size_t kTerminalName = 40;  // bytes of a name shown beside the bar

std::string time_text(double seconds) {
  const auto whole = static_cast<long>(std::lround(seconds));
  char text[32];
  std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  return text;
}

std::string bar(double share) {
  constexpr std::size_t kWidth = 30;
  const auto filled = static_cast<std::size_t>(std::lround(share * kWidth));
  return "[" + std::string(filled, '#') + std::string(kWidth - filled, '.') + "]";
}

}  // namespace

ProgressReport::ProgressReport(std::string verb)
    : verb_(std::move(verb)),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_(start_) {}

ProgressReport::~ProgressReport() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
}

double ProgressReport::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void ProgressReport::operator()(const deltadct::io::Progress& progress) {
  const auto now = Clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  if (since < (terminal_ ? kTerminalInterval : kLogInterval)) return;
  last_ = now;
  const auto done = static_cast<double>(progress.bytes_done);
  const auto total = static_cast<double>(std::max<std::uint64_t>(progress.bytes_total, 1));
  const double share = std::min(1.0, done / total);
  const double rate = done / seconds();
  const double left = rate > 0 ? (total - done) / rate : 0;
  const std::string status = verb_ + " " + (terminal_ ? bar(share) + " " : "") +
                             std::to_string(std::lround(100 * share)) + "% " + bytes_text(rate) +
                             "/s, " + time_text(left) + " left";
  if (terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s  %s", status.c_str(),
                 deltadct::printable(progress.tensor, kTerminalName).c_str());
    std::fflush(stderr);
    drawn_ = true;
  } else {
    std::fprintf(stderr, "%s  %s\n", status.c_str(), deltadct::printable(progress.tensor).c_str());
  }
}

}  // namespace cli
