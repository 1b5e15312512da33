#include "pairs.hpp"

#include "../../examples/char_gpt/gpt.hpp"
#include "vit.hpp"

#include <deltadct/io/apply.hpp>

#include <fstream>
#include <iterator>
#include <memory>

namespace fidelity {

using char_gpt::Judgement;
using char_gpt::Weights;
using deltadct::Errc;
using deltadct::Error;
namespace fs = std::filesystem;
namespace io = deltadct::io;

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  Bytes bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.empty()) throw Error(Errc::io_failure, path.string(), "nothing to read");
  return bytes;
}

/// Reads the set of that name: a line "name count", then the images, then their labels.
Images read_images(const fs::path& path, const std::string& wanted) {
  std::ifstream file(path, std::ios::binary);
  std::string name;
  for (std::size_t count = 0; file >> name >> count && file.get() == '\n';) {
    Images images{Bytes(count * kImageBytes), Bytes(count)};
    for (Bytes* part : {&images.pixels, &images.labels}) {
      file.read(reinterpret_cast<char*>(part->data()), static_cast<std::streamsize>(part->size()));
    }
    if (!file) break;
    if (name == wanted) return images;
  }
  throw Error(Errc::io_failure, path.string(), "no images of " + wanted);
}

/// The same as rotated() of train.py: image k is turned by k % 4 quarter turns counter-clockwise,
/// which is also its label.
Images rotated(Images images) {
  for (std::size_t k = 0; k < images.labels.size(); ++k) {
    const auto turns = static_cast<std::uint8_t>(k % 4);
    images.labels[k] = turns;
    const auto image = images.pixels.begin() + static_cast<std::ptrdiff_t>(k * kImageBytes);
    for (int turn = 0; turn < turns; ++turn) {
      const Bytes before(image, image + static_cast<std::ptrdiff_t>(kImageBytes));
      for (std::size_t row = 0; row < kImageSide; ++row) {
        for (std::size_t col = 0; col < kImageSide; ++col) {
          image[static_cast<std::ptrdiff_t>(row * kImageSide + col)] =
              before[col * kImageSide + kImageSide - 1 - row];
        }
      }
    }
  }
  return images;
}

Images negative(Images images) {
  for (std::uint8_t& pixel : images.pixels) pixel = static_cast<std::uint8_t>(255 - pixel);
  return images;
}

}  // namespace

std::vector<Pair> open_pairs(const Folders& folders, const fs::path& demo_heldout,
                             std::size_t windows) {
  const auto restored = [&](const fs::path& base, const std::string& name) {
    const fs::path path = folders.scratch / (name + ".safetensors");
    io::ApplyOptions options;
    options.output.overwrite = io::Overwrite::yes;
    io::apply_archive(io::Model::open(base),
                      io::DeltaArchive::open(folders.models / (name + ".delta.safetensors")), path,
                      options, [](const deltadct::CodecSpec&) { return nullptr; });
    return path;
  };
  const auto reads = [&](const fs::path& heldout) {
    const auto text = std::make_shared<const Bytes>(read_all(heldout));
    return [=](const Weights& weights) { return char_gpt::Gpt(weights).judge(*text, windows); };
  };
  const auto sees = [&](Images images) {
    const auto shared = std::make_shared<const Images>(std::move(images));
    return [=](const Weights& weights) { return VisionTransformer(weights).judge(*shared); };
  };
  const fs::path gpt = folders.demo / "base.safetensors";
  const fs::path vit = folders.models / "vit.safetensors";
  const fs::path images = folders.models / "images.bin";
  return {
      {"cpp", "GPT: C++", gpt, folders.demo / "tuned.safetensors", reads(demo_heldout)},
      {"python", "GPT: Python", gpt, restored(gpt, "python"),
       reads(folders.models / "heldout.txt")},
      {"digits", "ViT: digits", vit, restored(vit, "digits"), sees(read_images(images, "digits"))},
      {"negative", "ViT: negative", vit, restored(vit, "negative"),
       sees(negative(read_images(images, "clothes")))},
      {"rotation", "ViT: rotation", vit, restored(vit, "rotation"),
       sees(rotated(read_images(images, "clothes")))},
  };
}

}  // namespace fidelity
