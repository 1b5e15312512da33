// Progress of a running command: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <deltadct/io/checkpoint.hpp>

#include <chrono>
#include <string>

namespace cli {

/// Reports to stderr, so that stdout is left to results.
class ProgressReport {
 public:
  explicit ProgressReport(std::string verb);
  ~ProgressReport();
  ProgressReport(const ProgressReport&) = delete;
  ProgressReport& operator=(const ProgressReport&) = delete;

  void operator()(const deltadct::io::Progress& progress);

  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;

  std::string verb_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
};

}  // namespace cli
