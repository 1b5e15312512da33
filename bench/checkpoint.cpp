// Compares whole models with the codec alone on the same tensors: CPU time of compress and apply,
// memory other than the files' own pages, and the time to open an archive of many tensors.
//
//   bench_checkpoint BASE TUNED WORK      models as make_pair.py writes them, all matrices equal
//
// Uses one thread, the paper's mix, and P = 16. CPU time is the user and system time of the
// process. Memory is the peak of RssAnon in /proc/self/status, read every 20 ms: resident pages
// that no file backs.
#include <deltadct/io/checkpoint.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include <sys/resource.h>

namespace {

namespace io = deltadct::io;
using Policy = deltadct::DefaultPolicy<float, 16>;

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

long anonymous_kilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::stol(line.substr(8));
  }
  return 0;
}

/// Tracks the peak of memory during its lifetime.
class PeakMemory {
 public:
  ~PeakMemory() { stop(); }

  double stop() {
    running_ = false;
    if (thread_.joinable()) thread_.join();
    return static_cast<double>(peak_) * 1024;
  }

 private:
  std::atomic<bool> running_ = true;
  std::atomic<long> peak_ = 0;
  std::thread thread_{[this] {
    while (running_) {
      peak_ = std::max(peak_.load(), anonymous_kilobytes());
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }};
};

std::unique_ptr<deltadct::AnyCodec> factory(const deltadct::CodecSpec& spec) {
  return deltadct::make_policy_codec<Policy>(spec.allocator);
}

/// CPU seconds to encode and to decode every pair of matrices, which are in memory beforehand.
std::pair<double, double> codec_alone(const io::Model& base, const io::Model& tuned) {
  const auto codec = factory({});
  deltadct::CompressedTensor delta;
  std::vector<std::byte> workspace, out;
  io::TensorBytes from, to;
  double encode = 0;
  double decode = 0;
  for (const io::ModelTensor& tensor : tuned.tensors()) {
    base.read(*base.find(tensor.name), from);
    tuned.read(tensor, to);
    // Bring the files' pages into memory before the clock runs.
    static_cast<void>(io::fingerprint(from.bytes()));
    static_cast<void>(io::fingerprint(to.bytes()));
    out.resize(tensor.bytes());
    const double begin = cpu_seconds();
    codec->encode_into(delta, workspace, tensor.dtype, from.bytes().data(), to.bytes().data(),
                       tensor.shape[0], tensor.shape[1], deltadct::SerialExecutor{});
    const double middle = cpu_seconds();
    codec->decode_add(delta, tensor.dtype, from.bytes().data(), out.data(), 1,
                      deltadct::SerialExecutor{});
    decode += cpu_seconds() - middle;
    encode += middle - begin;
    from.release();
    to.release();
  }
  return {encode, decode};
}

/// Runs an operation. Prints its CPU time beside the codec's, and its memory.
template <class Fn>
void measure(const char* name, double alone, Fn fn) {
  PeakMemory memory;
  const double cpu = cpu_seconds();
  const double wall = wall_seconds();
  const io::CheckpointReport report = fn();
  const double seconds = cpu_seconds() - cpu;
  std::printf(
      "%-9s %7.2f s CPU, codec alone %7.2f s, ratio %.2f; %.2f s, %.2f GB/s; peak %.0f MB\n", name,
      seconds, alone, seconds / alone, wall_seconds() - wall,
      static_cast<double>(report.model_bytes) / (wall_seconds() - wall) / 1e9, memory.stop() / 1e6);
}

/// The time to open an archive of `count` small deltas.
void measure_open(const std::filesystem::path& path, std::size_t count) {
  const std::vector<float> values(16 * 16, 1.0F);
  const deltadct::DeltaCodec<Policy> codec;
  const auto delta = codec.encode(deltadct::MatrixView<const float>(values.data(), 16, 16));
  io::Sections sections;
  io::append_matrix(sections.delta, delta);
  io::ManifestEntry entry;
  entry.mode = io::Mode::delta;
  entry.shape = {16, 16};
  entry.tuned = io::fingerprint({});
  entry.base = io::BaseTensor{entry.dtype, entry.shape, entry.tuned};
  entry.stack = {1, 16, 16};
  entry.matrices = {delta.header};
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) {
    names.push_back("model.layers." + std::to_string(i) + ".self_attn.q_proj.weight");
  }
  io::OutputOptions output;
  output.overwrite = io::Overwrite::yes;
  io::ArchiveWriter writer(path, output, names, {});
  for (const std::string& name : names) {
    entry.name = name;
    writer.add(entry, sections);
  }
  writer.finish();
  std::vector<double> seconds;
  for (int i = 0; i < 7; ++i) {
    const double begin = wall_seconds();
    const auto archive = io::DeltaArchive::open(path);
    seconds.push_back(wall_seconds() - begin);
  }
  std::ranges::sort(seconds);
  std::printf("open      an archive of %zu tensors: median %.3f s, worst %.3f s of %zu\n", count,
              seconds[seconds.size() / 2], seconds.back(), seconds.size());
}

void run(const std::filesystem::path& base_path, const std::filesystem::path& tuned_path,
         const std::filesystem::path& work) {
  std::filesystem::create_directories(work);
  const auto base = io::Model::open(base_path);
  const auto tuned = io::Model::open(tuned_path);
  for (int pass = 0; pass < 2; ++pass) {
    const auto [encode, decode] = codec_alone(base, tuned);
    io::CompressOptions compress;
    compress.output.overwrite = io::Overwrite::yes;
    measure("compress", encode, [&] {
      return io::compress_model(base, tuned, work / "delta.safetensors", compress, factory);
    });
    io::ApplyOptions apply;
    apply.output.overwrite = io::Overwrite::yes;
    apply.output.max_shard_bytes = 1'000'000'000;
    const auto archive = io::DeltaArchive::open(work / "delta.safetensors");
    measure("apply", decode,
            [&] { return io::apply_archive(base, archive, work / "out", apply, factory); });
  }
  measure_open(work / "many.safetensors", 50'000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s BASE TUNED WORK\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
