// deltadct: compress a fine-tune against its base, apply, inspect, verify and compare.
//
// Exit codes: 0 success, 1 an error, named on stderr, 2 a wrong command line.
#include "baselines.hpp"
#include "commands.hpp"
#include "names.hpp"
#include "options.hpp"
#include "text.hpp"
#include "threads.hpp"

#include <CLI/CLI.hpp>

#include <deltadct/version.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <regex>
#include <stdexcept>

#include <fcntl.h>
#include <unistd.h>

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

// A mapped file that another process shortens raises SIGBUS. Incomplete outputs are not in place.
// What is left to clean up are files with temporary names, and the stage of a folder in which
// nothing is complete yet.
std::optional<deltadct::io::StageRemover> remove_stage;

void clean_up() {
  deltadct::io::TemporaryPath::remove_all();
  if (remove_stage) (*remove_stage)();
}

extern "C" void report_lost_input(int) {
  clean_up();
  constexpr char kText[] = "deltadct: an input was cut off while being read (--io read names it)\n";
  static_cast<void>(!::write(STDERR_FILENO, kText, sizeof kText - 1));
  ::_exit(kFailed);
}

extern "C" void end_by_signal(int number) {
  clean_up();
  std::signal(number, SIG_DFL);
  std::raise(number);  // which waits until this handler returns
}

// Ignores SIGPIPE: a command that writes a file must not die because nobody reads its messages. And
// SIGXFSZ: a file beyond the limit of the process is an error of the write, like a full disk.
void begin_writing(const cli::Writing& writing, bool may_be_folder) {
  if (writing.resume && !may_be_folder && writing.max_shard_bytes == 0)
    throw CLI::ValidationError("--resume", "requires --max-shard-size: a file has no parts");
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  if (may_be_folder || writing.max_shard_bytes != 0) remove_stage.emplace(writing.output);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    // One that is ignored, as under nohup, stays so.
    if (std::signal(number, end_by_signal) == SIG_IGN) std::signal(number, SIG_IGN);
  }
}

void add_running(CLI::App& command, cli::Common& common) {
  command.add_option("--backend", common.backend, "the backend that runs the kernels")
      ->check(CLI::IsMember({"simd", "serial"}))
      ->capture_default_str();
  command.add_option("--threads", common.threads, "number of threads; 0 for one per core")
      ->check(CLI::Range(0, cli::kMostThreads))
      ->capture_default_str();
}

// Nothing has an empty name. In the code, an empty name stands for one that is not given.
std::string check_path(const std::string& text) {
  return text.empty() ? "an empty name is none" : "";
}

// A size, such as 5GB. The transformation added last runs first: AsSizeValue takes -1 for a huge
// number.
CLI::Option* take_size(CLI::Option* option) {
  const auto is_not_negative = [](std::string& text) -> std::string {
    return text.find('-') != text.npos ? "a size cannot be negative" : "";
  };
  return option->transform(CLI::AsSizeValue(true))->transform(CLI::Validator(is_not_negative, ""));
}

// Checks run after transformations, which leave nothing but digits. In the code, 0 stands for no
// size at all.
std::string check_not_zero(const std::string& text) {
  return text.find_first_not_of('0') == text.npos ? "a size cannot be 0" : "";
}

std::string check_bits(const std::string& text) {
  double value = 0;
  const char* const last = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), last, value);
  const bool is_number = parsed.ec == std::errc{} && parsed.ptr == last;
  return is_number && std::isfinite(value) && value > 0
             ? ""
             : "'" + text + "' is not a number of bits above 0";
}

void add_writing(CLI::App& command, cli::Writing& writing, const char* what) {
  command.add_option("-o,--output", writing.output, what)->required()->check(check_path);
  take_size(
      command.add_option("--max-shard-size", writing.max_shard_bytes,
                         "write a folder of files of about this size, such as 5GB, and an index"));
  command.add_flag("--resume", writing.resume,
                   "continue an interrupted run of the same command that writes a folder");
  command.add_flag("--force", writing.force, "replace an existing output");
}

// A pattern that does not compile, or a malformed mix, makes the command line wrong.
std::string check_regex(const std::string& text) {
  try {
    static_cast<void>(std::regex(text));
    return {};
  } catch (const std::regex_error& error) {
    return "'" + text + "' is not a regular expression: " + error.what();
  }
}

std::string check_renaming(const std::string& text) {
  try {
    static_cast<void>(cli::parse_renaming(text));
    return {};
  } catch (const std::invalid_argument& error) {
    return error.what();
  } catch (const std::regex_error& error) {
    return "'" + text + "' does not begin with a regular expression: " + error.what();
  }
}

std::string check_mix(const std::string& text) {
  try {
    static_cast<void>(cli::parse_mix(text));
    return {};
  } catch (const deltadct::Error& error) {
    // Not what(), whose text is already escaped: usage_error() escapes all that CLI11 says.
    return error.where() + ": " + std::string(describe(error.code())) + " (" + error.detail() + ")";
  }
}

std::string check_limit(const std::string& text) {
  try {
    deltadct::io::Limits limits;
    cli::set_limit(limits, text);
    return {};
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

void add_reading(CLI::App& command, cli::Reading& reading) {
  command.add_option("--io", reading.access, "map files into memory, or read them")
      ->check(CLI::IsMember({"map", "read"}))
      ->capture_default_str();
  command.add_flag("--follow-links", reading.follow_links,
                   "accept shards and files that are symbolic links, as in a download cache");
  command.add_flag("--strict", reading.strict,
                   "refuse what other readers ignore, such as a stale total_size in an index");
  command
      .add_option("--unknown-dtype", reading.unknown_dtype,
                  "what to do with tensors of an unknown dtype: refuse them, or keep them byte for "
                  "byte")
      ->check(CLI::IsMember({"refuse", "keep"}))
      ->capture_default_str();
  command
      .add_option("--limit", reading.limits,
                  "NAME=NUMBER: refuse inputs beyond bytes, tensors, header, rank, depth, shards, "
                  "expansion, file or files; compress leaves out files beyond the last two")
      ->allow_extra_args(false)
      ->check(check_limit);
}

CLI::Option* add_renaming(CLI::App& command, cli::Reading& reading) {
  return command
      .add_option(
          "--rename", reading.renames,
          "FROM=TO: replace what matches FROM in BASE's names, such as '^model\\.=' to remove a "
          "prefix")
      ->allow_extra_args(false)
      ->check(check_renaming);
}

// How much of a delta is kept, and in which form.
void add_method(CLI::App& command, cli::CompressArguments& arguments) {
  command
      .add_option(
          "--preset", arguments.preset,
          "paper: Delta-DCT as published; unit_gain: a smaller loss at the same size; "
          "lossless: every tensor bit for bit; the others: published methods to compare with")
      ->check(CLI::IsMember(
          {"paper", "unit_gain", "lossless", "bit_delta", "delta_come", "dare", "ultra_delta"}))
      ->capture_default_str();
  command
      .add_option("--patch", arguments.patch,
                  "patch size P, for unit_gain 16 or more; by default 16, for unit_gain 32")
      ->check(CLI::IsMember({4, 8, 12, 16, 32, 64}));
}

// What the archive may take.
void add_size(CLI::App& command, cli::CompressArguments& arguments) {
  CLI::Option* mix = command
                         .add_option("--mix", arguments.mix,
                                     "BITS:RATIO,... of the patches by importance; by default "
                                     "2:0.5,0:0.5, for unit_gain 1:1")
                         ->check(check_mix);
  CLI::Option* bits =
      command
          .add_option("--bpw", arguments.bits_per_weight,
                      "bits of the archive for each weight of the tensors that changed, instead "
                      "of --mix; for unit_gain and delta_come")
          ->check(check_bits)
          ->excludes(mix);
  take_size(command.add_option("--size", arguments.bytes,
                               "bytes of the archive, such as 60MB, instead of --bpw"))
      ->check(check_not_zero)
      ->excludes(mix)
      ->excludes(bits);
}

// Which tensors are compressed.
void add_selection(CLI::App& command, cli::CompressArguments& arguments) {
  command.add_option("--include", arguments.include, "compress only tensors whose name matches")
      ->allow_extra_args(false)
      ->check(check_regex);
  command
      .add_option("--exclude", arguments.exclude, "keep tensors without loss if their name matches")
      ->allow_extra_args(false)
      ->check(check_regex);
  command
      .add_option("--non-finite", arguments.non_finite,
                  "what to do with NaN or infinity: refuse, or keep that tensor lossless")
      ->check(CLI::IsMember({"refuse", "keep"}))
      ->capture_default_str();
}

// Whether a mix has a width that is one of the other kind of preset's.
bool has_width(const std::string& mix, bool is_unit_gain) {
  if (mix.empty()) return false;
  const deltadct::RatioAllocator allocator = cli::parse_mix(mix);
  return std::ranges::any_of(allocator.widths(),
                             [&](int bits) { return is_unit_gain ? bits > 4 : bits < 0; });
}

// Throws unless every option that was given applies to the preset.
void require_options_of_preset(const cli::CompressArguments& arguments) {
  const std::string& preset = arguments.preset;
  const auto refuse = [&](const char* option, bool given) {
    if (given) throw CLI::ValidationError(option, "does not apply to --preset " + preset);
  };
  const auto refuse_value = [&](const char* option, bool given, const char* why) {
    if (given) throw CLI::ValidationError(option, why);
  };
  const bool baseline = cli::is_baseline(preset);
  refuse("--patch", arguments.patch != 0 && baseline);
  refuse("--mix", !arguments.mix.empty() && baseline);
  refuse("--no-dct", arguments.no_dct && (baseline || preset == "unit_gain"));
  const bool has_budget = preset == "unit_gain" || preset == "delta_come";
  refuse("--bpw", arguments.bits_per_weight != 0 && !has_budget);
  refuse("--size", arguments.bytes != 0 && !has_budget);
  refuse_value("--patch", preset == "unit_gain" && arguments.patch != 0 && arguments.patch < 16,
               "must be 16, 32 or 64 with --preset unit_gain");
  refuse_value("--mix", has_width(arguments.mix, preset == "unit_gain"),
               preset == "unit_gain" ? "has a width above 4, which unit_gain does not have"
                                     : "has a width below 0, which only unit_gain has");
}

void add_compress(CLI::App& app, cli::CompressArguments& arguments, cli::Common& common) {
  CLI::App& command = *app.add_subcommand("compress", "make a delta archive from BASE and TUNED");
  command.add_option("BASE", arguments.base, "the base: a safetensors file, or a folder of shards")
      ->required()
      ->check(check_path);
  command.add_option("TUNED", arguments.tuned, "the fine-tune, likewise")
      ->required()
      ->check(check_path);
  add_method(command, arguments);
  add_size(command, arguments);
  add_selection(command, arguments);
  command.add_flag("--no-dct", arguments.no_dct, "quantize the weights without a transform");
  command.add_flag("--allow-unlike", arguments.allow_unlike,
                   "continue with a warning if TUNED does not look like a fine-tune of BASE");
  command.add_flag("-v,--verbose", arguments.verbose,
                   "print for every tensor how it is stored and restored");
  command.add_flag("--no-files", arguments.no_files,
                   "leave out the small files of TUNED's folder: configuration, tokenizer, code");
  add_writing(command, common.writing, "the archive to write");
  add_renaming(command, common.reading);
  add_reading(command, common.reading);
  add_running(command, common);
  command.callback([&] {
    require_options_of_preset(arguments);
    begin_writing(common.writing, false);
    cli::compress(arguments, common);
  });
}

void add_apply(CLI::App& app, cli::ApplyArguments& arguments, cli::Common& common) {
  CLI::App& command = *app.add_subcommand("apply", "write BASE + DELTA");
  command.add_option("BASE", arguments.base, "the base: a safetensors file, or a folder of shards")
      ->required()
      ->check(check_path);
  command.add_option("DELTA", arguments.delta, "delta archive: a file, or a folder of parts")
      ->required()
      ->check(check_path);
  command.add_flag("--force-base", arguments.force_base,
                   "continue with a warning if BASE is not the one DELTA was made from");
  command.add_flag(
      "--in-place", arguments.in_place,
      "OUT may be BASE, which it replaces once it is complete; DELTA cannot be applied "
      "again");
  command
      .add_option("--dtype", arguments.dtype,
                  "dtype of the tensors that were compressed: the base's, or the fine-tune's")
      ->check(CLI::IsMember({"base", "tuned"}))
      ->capture_default_str();
  command
      .add_option("--round", arguments.round,
                  "rounding to F16 or BF16 of the tensors that were compressed: nearest, or "
                  "stochastic, which keeps deltas below half a unit in the last place on average")
      ->check(CLI::IsMember({"nearest", "stochastic"}))
      ->capture_default_str();
  add_writing(command, common.writing,
              "the model to write: a folder if TUNED was one, unless named NAME.safetensors");
  add_renaming(command, common.reading);
  add_reading(command, common.reading);
  add_running(command, common);
  command.callback([&] {
    begin_writing(common.writing, !common.writing.output.ends_with(".safetensors"));
    cli::apply(arguments, common);
  });
}

struct Files {
  std::string base, tuned, delta, other;
  bool json = false;
};

void add_inspect(CLI::App& app, Files& files, cli::Common& common) {
  CLI::App& command = *app.add_subcommand("inspect", "list what DELTA holds, without decoding it");
  command.add_option("DELTA", files.delta, "delta archive: a file, or a folder of parts")
      ->required()
      ->check(check_path);
  command.add_flag("--json", files.json, "as JSON");
  add_reading(command, common.reading);
  command.callback([&] { cli::inspect(files.delta, files.json, common); });
}

void add_verify(CLI::App& app, Files& files, cli::Common& common) {
  CLI::App& command = *app.add_subcommand("verify", "check every tensor of DELTA");
  command.add_option("DELTA", files.delta, "delta archive: a file, or a folder of parts")
      ->required()
      ->check(check_path);
  CLI::Option* base =
      command.add_option("--base", files.base, "also check that it was made from this base")
          ->check(check_path);
  add_renaming(command, common.reading)->needs(base);
  add_reading(command, common.reading);
  add_running(command, common);
  command.callback([&] { cli::verify(files.delta, files.base, common); });
}

void add_diff(CLI::App& app, Files& files, cli::Common& common) {
  CLI::App& command =
      *app.add_subcommand("diff", "compare OTHER - BASE with TUNED - BASE, tensor by tensor");
  command.add_option("BASE", files.base, "the base: a safetensors file, or a folder of shards")
      ->required()
      ->check(check_path);
  command.add_option("TUNED", files.tuned, "the fine-tune, likewise")
      ->required()
      ->check(check_path);
  command.add_option("OTHER", files.other, "the model to judge, likewise")
      ->required()
      ->check(check_path);
  command.add_flag("--json", files.json, "as JSON");
  add_renaming(command, common.reading);
  add_reading(command, common.reading);
  command.callback([&] { cli::diff(files.base, files.tuned, files.other, files.json, common); });
}

// CLI11 quotes arguments without escaping them.
std::string usage_error(const CLI::App*, const CLI::Error& error) {
  return deltadct::printable(error.what(), deltadct::kLongestText) +
         "\nRun with --help for more information.\n";
}

/// The switch that helps with an error, if its text names none. Paths, such as those of a download
/// cache, may contain "--".
const char* switch_for(const deltadct::Error& error) {
  if (error.detail().find("--") != std::string::npos) return "";
  switch (error.code()) {
    case deltadct::Errc::output_exists:
      return "; --force replaces it";
    case deltadct::Errc::non_finite:
      return "; --non-finite keep stores such tensors without loss";
    case deltadct::Errc::wrong_base:
      return "; apply --force-base continues anyway";
    default:
      return "";
  }
}

// In a process that was started without one of the first three descriptors, the next file to be
// opened would take its number, and a library that reports to stderr would write into it. So each
// gets a file that is open in the wrong direction only: reading and writing fail as before.
void claim_standard_descriptors() {
  for (const int wanted : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(wanted, F_GETFD) != -1) continue;
    const int flags = wanted == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    static_cast<void>(::open("/dev/null", flags));  // takes the lowest free number
  }
}

// Does what the command line asks for. Returns the exit code.
int run(int argc, char** argv) {
  CLI::App app("Data-free compression of the difference between a fine-tune and its base",
               "deltadct");
  app.failure_message(usage_error);
  app.set_version_flag("--version", "deltadct " DELTADCT_VERSION_STRING);
  app.require_subcommand(1);
  cli::Common common;
  cli::CompressArguments to_compress;
  cli::ApplyArguments to_apply;
  Files files;
  add_compress(app, to_compress, common);
  add_apply(app, to_apply, common);
  add_inspect(app, files, common);
  add_verify(app, files, common);
  add_diff(app, files, common);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // or a request for help
    if (app.exit(error) != 0) return kUsage;
  }
  if (!cli::flush_results()) throw deltadct::Error(deltadct::Errc::io_failure, "stdout");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  claim_standard_descriptors();
  std::signal(SIGBUS, report_lost_input);
  try {
    return run(argc, argv);
  } catch (const deltadct::Error& error) {
    std::fprintf(stderr, "deltadct: %s%s\n", error.what(), switch_for(error));
  } catch (const std::bad_alloc&) {
    std::fputs("deltadct: not enough memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "deltadct: %s\n",
                 deltadct::printable(error.what(), deltadct::kLongestText).c_str());
  }
  return kFailed;
}
