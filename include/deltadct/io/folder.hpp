// A folder of files that appears complete under its name, or not at all, and that an interrupted
// run can be resumed in.
//
//   NAME.partial/            until publish(); locked by the process that writes it
//     deltadct.plan          what is being written; resuming needs the same
//     deltadct.replaced      marks an output that has changed places with a new one
//     *.safetensors, *.json  each complete as soon as it is there (AtomicFile)
//   NAME/                    from publish() on
#pragma once

#include <deltadct/io/atomic_file.hpp>
#include <deltadct/io/input_file.hpp>

#include <sys/file.h>

namespace deltadct::inline DELTADCT_ABI::io {

/// Whether to go on in what an interrupted run left.
enum class Resume : bool { no, yes };

/// Writes into stage(), then publish(). Without publish() the stage stays, for a later run to
/// resume or to start over in, unless it holds nothing that is complete.
class AtomicFolder {
 public:
  /// Throws output_exists, cannot_resume where what is there was made by another plan, and
  /// io_failure; also where the output or its stage is a folder with files of another kind, or
  /// another process is writing it.
  AtomicFolder(const std::filesystem::path& path, Overwrite overwrite, Resume resume,
               std::string_view plan)
      : path_(path.has_filename() ? path : path.parent_path()),
        stage_(path_.string() + ".partial"),
        overwrite_(overwrite) {
    if (!path_.has_filename()) detail::throw_errno(path, "mkdir", EINVAL);
    check_output();
    do make_stage();
    while (!lock());
    prepare(resume, plan);
  }

  AtomicFolder(const AtomicFolder&) = delete;
  ~AtomicFolder() {
    if (!published_ && !holds_complete_files()) remove(stage_);
  }

  /// Where the files are to be written.
  const std::filesystem::path& stage() const noexcept { return stage_; }

  /// Whether an interrupted run has completed a file.
  bool has(const std::string& name) const {
    std::error_code ignored;
    return std::filesystem::is_regular_file(
        std::filesystem::symlink_status(stage_ / name, ignored));
  }

  /// Puts the folder in place; to be called once, last.
  void publish() {
    sync(stage_);
    const bool replaced = overwrite_ == Overwrite::yes && replace();
    if (!replaced && !detail::rename_new(AT_FDCWD, stage_.string(), path_.string())) {
      // What cannot refuse refuses folders that are not empty.
      if (errno != EPERM && errno != EINVAL) fail("rename");
      if (::rename(stage_.c_str(), path_.c_str()) != 0) fail("rename");
    }
    published_ = true;
    sync(path_.has_parent_path() ? path_.parent_path() : ".");
    ::unlink((path_ / kPlan).c_str());
    if (replaced) remove(stage_);
  }

 private:
  static constexpr const char* kPlan = "deltadct.plan";
  static constexpr const char* kReplaced = "deltadct.replaced";

  [[noreturn]] void fail(std::string_view call, int number = errno) const {
    if (number == EEXIST || number == ENOTEMPTY) throw Error(Errc::output_exists, path_.string());
    detail::throw_errno(path_, call, number);
  }

  /// Swaps an output that exists for the stage; false where there is none. A mark in the old one
  /// tells a later run what it finds in the stage's place, should this be the end.
  bool replace() const {
    if (std::filesystem::is_directory(path_)) {
      const detail::Descriptor mark(
          ::open((path_ / kReplaced).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
      if (mark.get() == -1) fail("open");
    }
    if (::renameat2(AT_FDCWD, stage_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
      return true;
    }
    if (errno == ENOENT) return false;
    if (errno != EINVAL && errno != ENOSYS && errno != EXDEV) fail("rename");
    throw Error(
        Errc::io_failure, path_.string(),
        "this file system cannot exchange it for " + stage_.string() + "; remove it and resume");
  }

  static bool is_own(const std::filesystem::directory_entry& entry) {
    std::error_code error;
    const std::string name = entry.path().filename().string();
    return entry.symlink_status(error).type() == std::filesystem::file_type::regular &&
           (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
            name == kPlan || name == kReplaced || detail::is_temporary_name(name));
  }

  template <class Fn>
  static void for_each_file(const std::filesystem::path& folder, Fn fn) {
    std::error_code error;
    std::filesystem::directory_iterator at(folder, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) fn(*at);
    if (error) throw Error(Errc::io_failure, folder.string(), error.message());
  }

  /// A folder may be replaced where it holds nothing but what such an output consists of.
  static void check_own(const std::filesystem::path& folder) {
    for_each_file(folder, [&](const auto& entry) {
      if (is_own(entry)) return;
      throw Error(
          Errc::io_failure, folder.string(),
          "holds '" + entry.path().filename().string() + "', which is not of such an output");
    });
  }

  void check_output() const {
    std::error_code error;
    const auto status = std::filesystem::symlink_status(path_, error);
    if (!std::filesystem::exists(status)) return;
    if (overwrite_ == Overwrite::no) throw Error(Errc::output_exists, path_.string());
    if (std::filesystem::is_directory(status)) return check_own(path_);
    if (!std::filesystem::is_regular_file(status)) {
      throw Error(Errc::io_failure, path_.string(), "neither a folder nor a regular file");
    }
  }

  void make_stage() const {
    if (::mkdir(stage_.c_str(), 0777) == 0) return;
    if (errno != EEXIST) detail::throw_errno(stage_, "mkdir");
    if (!std::filesystem::is_directory(std::filesystem::symlink_status(stage_))) {
      detail::throw_errno(stage_, "mkdir", EEXIST);
    }
    const bool ours = has(kPlan) || has(kReplaced);
    for_each_file(stage_, [&](const auto& entry) {
      if (ours && is_own(entry)) return;
      throw Error(Errc::io_failure, stage_.string(), "exists, and is not of an interrupted run");
    });
  }

  /// False where the stage was removed in between, by a process that had it before.
  bool lock() {
    const auto plan = stage_ / kPlan;
    plan_ = detail::Descriptor(detail::retry(
        [&] { return ::open(plan.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666); }));
    if (plan_.get() == -1 && errno == ENOENT) return false;
    if (plan_.get() == -1) detail::throw_errno(stage_, "open");
    if (::flock(plan_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) detail::throw_errno(stage_, "flock");
      throw Error(Errc::io_failure, path_.string(), "another process is writing it");
    }
    struct stat held {
    }, named{};
    return ::fstat(plan_.get(), &held) == 0 && ::lstat(plan.c_str(), &named) == 0 &&
           held.st_dev == named.st_dev && held.st_ino == named.st_ino;
  }

  void prepare(Resume resume, std::string_view plan) {
    // What has been replaced is no run to go on with.
    if (resume == Resume::yes && holds_complete_files() && !has(kReplaced)) {
      if (read_plan() != plan) throw Error(Errc::cannot_resume, stage_.string());
    } else {
      clear([](const std::string& name) { return name != kPlan; });
      if (::ftruncate(plan_.get(), 0) != 0) detail::throw_errno(stage_, "ftruncate");
      detail::write_at(plan_.get(), 0, std::as_bytes(std::span(plan)), stage_);
      if (detail::retry([&] { return ::fsync(plan_.get()); }) != 0) {
        detail::throw_errno(stage_, "fsync");
      }
    }
    clear(detail::is_temporary_name);
    sync(stage_);
  }

  std::string read_plan() const {
    const InputFile file = InputFile::open(stage_ / kPlan, Access::read, Links::refuse);
    std::vector<std::byte> storage;
    const auto bytes = file.bytes(0, file.size(), storage);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  bool holds_complete_files() const {
    bool found = false;
    std::error_code error;
    std::filesystem::directory_iterator at(stage_, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
      found = found || at->path().filename().string().ends_with(".safetensors");
    }
    return found;
  }

  template <class Choose>
  void clear(Choose choose) const {
    for_each_file(stage_, [&](const auto& entry) {
      if (choose(entry.path().filename().string()) && ::unlink(entry.path().c_str()) != 0) {
        detail::throw_errno(entry.path(), "unlink");
      }
    });
  }

  /// Removes a file, or a folder with what such an output consists of.
  static void remove(const std::filesystem::path& path) noexcept {
    std::error_code error;
    std::filesystem::directory_iterator at(path, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
      if (is_own(*at)) ::unlink(at->path().c_str());
    }
    std::filesystem::remove(path, error);
  }

  static void sync(const std::filesystem::path& folder) {
    const detail::Descriptor descriptor(
        detail::retry([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (descriptor.get() == -1) detail::throw_errno(folder, "open folder");
    // Some file systems cannot sync a folder, and say EINVAL.
    if (detail::retry([&] { return ::fsync(descriptor.get()); }) != 0 && errno != EINVAL) {
      detail::throw_errno(folder, "fsync folder");
    }
  }

  std::filesystem::path path_;
  std::filesystem::path stage_;
  Overwrite overwrite_;
  detail::Descriptor plan_;
  bool published_ = false;
};

}  // namespace deltadct::inline DELTADCT_ABI::io
