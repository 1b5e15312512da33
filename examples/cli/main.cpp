// deltadct: compress a fine-tune against its base, apply, inspect, verify and compare.
//
// Exit codes: 0 done, 1 an error named on stderr, 2 a wrong command line.
#include "commands.hpp"

#include <CLI/CLI.hpp>

#include <deltadct/version.hpp>

#include <cstdio>
#include <exception>
#include <regex>

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

void add_common(CLI::App& command, cli::Common& common) {
  command.add_option("--backend", common.backend, "what the kernels run on")
      ->check(CLI::IsMember({"simd", "serial"}))
      ->capture_default_str();
  command.add_option("--threads", common.threads, "threads; 0 for one a core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command.add_flag("--force", common.force, "replace an existing output");
}

// A pattern that does not compile, or a mix that is none, is a wrong command line.
std::string check_regex(const std::string& text) {
  try {
    static_cast<void>(std::regex(text));
    return {};
  } catch (const std::regex_error& error) {
    return "'" + text + "' is not a regular expression: " + error.what();
  }
}

std::string check_mix(const std::string& text) {
  try {
    static_cast<void>(cli::parse_mix(text));
    return {};
  } catch (const deltadct::Error& error) {
    return error.what();
  }
}

void add_compress(CLI::App& app, cli::CompressArguments& arguments, cli::Common& common) {
  CLI::App& command = *app.add_subcommand("compress", "make a delta archive from BASE and TUNED");
  command.add_option("BASE", arguments.base, "safetensors file of the base")->required();
  command.add_option("TUNED", arguments.tuned, "safetensors file of the fine-tune")->required();
  command.add_option("-o,--output", arguments.output, "the archive to write")->required();
  command.add_option("--preset", arguments.preset, "paper: Delta-DCT as published")
      ->check(CLI::IsMember({"paper"}))
      ->capture_default_str();
  command.add_option("--patch", arguments.patch, "patch size P")
      ->check(CLI::IsMember({4, 8, 12, 16, 32, 64}))
      ->capture_default_str();
  command.add_option("--mix", arguments.mix, "BITS:RATIO,... of the patches by importance")
      ->check(check_mix)
      ->capture_default_str();
  command.add_option("--include", arguments.include, "compress only tensors whose name matches")
      ->allow_extra_args(false)
      ->check(check_regex);
  command.add_option("--exclude", arguments.exclude, "keep tensors whose name matches lossless")
      ->allow_extra_args(false)
      ->check(check_regex);
  command
      .add_option("--non-finite", arguments.non_finite,
                  "what to do with NaN or infinity: refuse, or keep that tensor lossless")
      ->check(CLI::IsMember({"refuse", "keep"}))
      ->capture_default_str();
  command.add_flag("--no-dct", arguments.no_dct, "quantize the weights without a transform");
  add_common(command, common);
  command.callback([&] { cli::compress(arguments, common); });
}

struct Files {
  std::string base, tuned, delta, other, output;
  bool json = false;
};

void add_apply(CLI::App& app, Files& files, cli::Common& common) {
  CLI::App& command = *app.add_subcommand("apply", "write BASE + DELTA");
  command.add_option("BASE", files.base, "safetensors file of the base")->required();
  command.add_option("DELTA", files.delta, "delta archive")->required();
  command.add_option("-o,--output", files.output, "the model to write")->required();
  add_common(command, common);
  command.callback([&] { cli::apply(files.base, files.delta, files.output, common); });
}

void add_inspect(CLI::App& app, Files& files) {
  CLI::App& command = *app.add_subcommand("inspect", "list what DELTA holds, decoding nothing");
  command.add_option("DELTA", files.delta, "delta archive")->required();
  command.add_flag("--json", files.json, "as JSON");
  command.callback([&] { cli::inspect(files.delta, files.json); });
}

void add_verify(CLI::App& app, Files& files) {
  CLI::App& command = *app.add_subcommand("verify", "check every tensor of DELTA");
  command.add_option("DELTA", files.delta, "delta archive")->required();
  command.add_option("--base", files.base, "check too that it was made from this base");
  command.callback([&] { cli::verify(files.delta, files.base); });
}

void add_diff(CLI::App& app, Files& files) {
  CLI::App& command =
      *app.add_subcommand("diff", "compare OTHER - BASE with TUNED - BASE, tensor by tensor");
  command.add_option("BASE", files.base, "safetensors file of the base")->required();
  command.add_option("TUNED", files.tuned, "safetensors file of the fine-tune")->required();
  command.add_option("OTHER", files.other, "safetensors file to judge")->required();
  command.add_flag("--json", files.json, "as JSON");
  command.callback([&] { cli::diff(files.base, files.tuned, files.other, files.json); });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Data-free compression of the difference between a fine-tune and its base");
  app.set_version_flag("--version", "deltadct " DELTADCT_VERSION_STRING);
  app.require_subcommand(1);
  cli::Common common;
  cli::CompressArguments arguments;
  Files files;
  add_compress(app, arguments, common);
  add_apply(app, files, common);
  add_inspect(app, files);
  add_verify(app, files);
  add_diff(app, files);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "deltadct: %s\n", error.what());
    return kFailed;
  }
}
