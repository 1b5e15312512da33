// Formats figures and names for people.
#pragma once

#include <deltadct/io/checkpoint.hpp>

#include <functional>
#include <span>
#include <string>

namespace cli {

/// Bits per weight.
double per_weight(std::uint64_t bytes, std::uint64_t elements);

/// "12 delta, 3 same": the modes that occur.
std::string modes_text(const deltadct::io::CheckpointReport& report);

/// A size such as "12.3 MB", in powers of ten.
std::string bytes_text(double bytes);

/// "gain 0.9987, SNR 2.23 dB".
std::string recovery_text(const deltadct::io::Recovery& recovery);

/// Writes a result to stdout. Escapes everything but ASCII, so that nothing controls a terminal.
void print_json(const nlohmann::json& result);

/// Prints a line on stderr: "deltadct: warning: WHERE: WHAT".
void warn(const deltadct::io::Warning& warning);
/// The greatest losses first; of each kind of loss, the first ones and how many more there are.
void warn(std::span<const deltadct::io::Warning> warnings);

/// Flushes stdout. Returns false if that fails because stdout is closed or full.
bool flush_results();

/// Prints a summary of an output that is in place. The output is the result, so a failure to print
/// is only a warning.
void tell_of_output(const std::function<void()>& print);

}  // namespace cli
