// Figures and names as people read them.
#pragma once

#include <deltadct/io/checkpoint.hpp>

#include <functional>
#include <span>
#include <string>

namespace cli {

/// Bits a weight.
double per_weight(std::uint64_t bytes, std::uint64_t elements);

/// "12 delta, 3 same": the modes that occur.
std::string modes_text(const deltadct::io::CheckpointReport& report);

/// "12.3 MB" and the like, in powers of ten.
std::string bytes_text(double bytes);

/// "gain 0.9987, SNR 2.23 dB".
std::string recovery_text(const deltadct::io::Recovery& recovery);

/// Writes a result to stdout: every character but ASCII escaped, so that none steers a terminal.
void print_json(const nlohmann::json& result);

/// A line on stderr: "deltadct: warning: WHERE: WHAT".
void warn(const deltadct::io::Warning& warning);
void warn(std::span<const deltadct::io::Warning> warnings);

/// Brings what was printed so far to stdout. False where that takes it no more: closed, or full.
bool flush_results();

/// Prints what there is to say of an output that is in place. The output is the result, so a
/// failure here is a warning.
void tell_of_output(const std::function<void()>& print);

}  // namespace cli
