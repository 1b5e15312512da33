// A folder of files that appears complete under its name, or not at all. An interrupted run can be
// resumed.
//
//   NAME.partial/            until publish(); locked by the process that writes it
//     deltadct.plan          what is being written; only a run with the same plan can resume
//     deltadct.replaced      marks an old output that has changed places with a new one
//     *.safetensors, *.json  each complete as soon as it exists (AtomicFile)
//     others, also deeper    the same
//   NAME/                    from publish() on; written_files.hpp tells its files from foreign ones
#pragma once

#include <deltadct/io/atomic_file.hpp>
#include <deltadct/io/input_file.hpp>
#include <deltadct/io/written_files.hpp>

#include <atomic>
#include <optional>

#include <sys/file.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Whether to continue what an interrupted run left.
enum class Resume : bool { no, yes };

/// Write files into stage(), then call publish(). Without publish(), the stage remains if it holds
/// a complete file, and a later run can resume it or start over in it.
class AtomicFolder {
 public:
  /// `files` are the files that the folder will hold beside shards and index. Throws output_exists;
  /// cannot_resume if another plan made what is there; io_failure, also if the output or its stage
  /// is a folder with files of another kind, or if another process is writing it.
  AtomicFolder(const std::filesystem::path& path, Overwrite overwrite, Resume resume,
               std::string_view plan, FileSums files = {})
      // After this constructor, the destructor runs whatever is thrown below.
      : AtomicFolder(path, overwrite, std::move(files)) {
    if (!path_.has_filename() || path_.filename() == "." || path_.filename() == "..") {
      throw Error(Errc::io_failure, path.string(), "not a name that a folder can be given");
    }
    check_output();
    do make_stage();
    while (!lock());
    held_.emplace();
    prepare(resume, plan);
  }

  AtomicFolder(const AtomicFolder&) = delete;
  ~AtomicFolder() {
    // rmdir() removes an empty stage without a descriptor to list it.
    if (!mine_ || ::rmdir(stage_.c_str()) == 0) return;
    try {
      if (!holds_complete_files()) remove(stage_, files_, Proof::name);
    } catch (const std::exception&) {  // a later run starts over in what remains
    }
  }

  /// The path of the stage for an output at `path`.
  static std::filesystem::path stage_of(const std::filesystem::path& path) {
    return (path.has_filename() ? path : path.parent_path()).string() + ".partial";
  }

  /// Whether an unfinished run may leave a file of that name in the folder.
  static bool is_mark(std::string_view name) { return name == kPlan || name == kReplaced; }

  /// The folder into which the files are written.
  const std::filesystem::path& stage() const noexcept { return stage_; }

  /// Whether an interrupted run has completed a file.
  bool has(const std::string& name) const {
    std::error_code ignored;
    return std::filesystem::is_regular_file(
        std::filesystem::symlink_status(stage_ / name, ignored));
  }

  /// Writes a file beside the shards: write(file) writes its bytes and returns their fingerprint.
  /// Keeps a file that an interrupted run has written. Returns the bytes of the file.
  template <class Write>
  std::uint64_t add(const std::string& name, Write&& write) const {
    const auto path = place(name);
    const auto expected = files_.find(name);
    if (expected != files_.end() && detail::file_sum(path) == expected->second) {
      return std::filesystem::file_size(path);
    }
    AtomicFile file(path, Overwrite::no);
    file.attach(detail::kSumAttribute, write(file));
    const std::uint64_t bytes = file.position();
    file.commit();
    return bytes;
  }

  /// Puts the folder in place. Call this once, last.
  void publish() {
    sync(stage_);
    const bool replaced = overwrite_ != Overwrite::no && replace();
    if (!replaced && !detail::rename_new(AT_FDCWD, stage_.string(), path_.string())) {
      // Without a rename that refuses, plain rename() still refuses folders that are not empty.
      if (errno != EPERM && errno != EINVAL) fail("rename");
      if (::rename(stage_.c_str(), path_.c_str()) != 0) fail("rename");
    }
    // The folder is in place, so a later failure is not a failure of the operation.
    mine_ = false;
    static_cast<void>(sync_folder(path_.has_parent_path() ? path_.parent_path() : "."));
    try {
      ::unlink((path_ / kPlan).c_str());
      // What somebody has put into the old output, or changed in it, since it was checked stays.
      if (replaced) {
        remove(stage_, {}, overwrite_ == Overwrite::input ? Proof::name : Proof::attribute);
      }
    } catch (const std::exception&) {
    }
  }

 private:
  friend class StageRemover;

  /// What shows that a shard or an index is from such a run: in a stage its name, in an output what
  /// is attached to it.
  enum class Proof { name, attribute };

  static constexpr const char* kPlan = "deltadct.plan";
  static constexpr const char* kReplaced = "deltadct.replaced";

  AtomicFolder(const std::filesystem::path& path, Overwrite overwrite, FileSums files)
      : path_(path.has_filename() ? path : path.parent_path()),
        stage_(stage_of(path)),
        overwrite_(overwrite),
        files_(std::move(files)) {}

  /// Makes the folders in the stage that lead to a file. Returns the file's path.
  std::filesystem::path place(const std::string& name) const {
    for (std::size_t end = name.find('/'); end != name.npos; end = name.find('/', end + 1)) {
      const auto folder = stage_ / name.substr(0, end);
      if (::mkdir(folder.c_str(), 0777) == 0) {
        sync(folder.parent_path());
      } else if (errno != EEXIST) {
        detail::throw_errno(folder, "mkdir");
      }
    }
    return stage_ / name;
  }

  [[noreturn]] void fail(std::string_view call, int number = errno) const {
    if (number == EEXIST || number == ENOTEMPTY) throw Error(Errc::output_exists, path_.string());
    detail::throw_errno(path_, call, number);
  }

  /// Swaps an existing output for the stage; returns false if there is none. If the process ends
  /// after that, a mark in the old output tells a later run what it finds in the stage's place.
  bool replace() const {
    std::error_code error;
    const auto mark = path_ / kReplaced;
    if (std::filesystem::is_directory(path_, error)) {
      const int flags = O_WRONLY | O_CREAT | O_NOFOLLOW;
      if (detail::open_file(mark.c_str(), flags, 0666).get() == -1) fail("open");
    }
    if (::renameat2(AT_FDCWD, stage_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
      return true;
    }
    const int number = errno;
    if (number == ENOENT) return false;
    ::unlink(mark.c_str());
    errno = number;
    if (errno != EINVAL && errno != ENOSYS && errno != EXDEV) fail("rename");
    throw Error(Errc::io_failure, path_.string(),
                "this file system cannot exchange it for " + stage_.string() +
                    ", which is complete; remove it and resume (--resume)");
  }

  static bool is_folder(const std::filesystem::directory_entry& entry) {
    std::error_code ignored;
    return std::filesystem::is_directory(entry.symlink_status(ignored));
  }

  /// Whether an entry of an output or a stage is from such a run. In a stage, that includes a file
  /// with the bytes that this run will write there. A folder counts as own; its contents are judged
  /// one by one.
  static bool is_own(const std::filesystem::path& folder,
                     const std::filesystem::directory_entry& entry, const FileSums& expected,
                     Proof proof) {
    if (is_folder(entry)) return true;
    std::error_code ignored;
    const std::filesystem::path& path = entry.path();
    const std::string name = path.filename().string();
    if (entry.symlink_status(ignored).type() != std::filesystem::file_type::regular) return false;
    const bool outermost = path.parent_path() == folder;
    if (detail::is_temporary_name(name) || (outermost && is_mark(name))) return true;
    const bool named = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
    if (outermost && named) return proof == Proof::name || detail::is_marked(path);
    return detail::is_as_written(folder, path, expected);
  }

  /// A folder may be replaced only if it holds nothing but the files of such an output. Names the
  /// first other file.
  static void check_own(const std::filesystem::path& folder) {
    std::string first;
    detail::for_each_entry(folder, [&](const auto& entry) {
      if (is_own(folder, entry, {}, Proof::attribute)) return;
      const std::string name = entry.path().lexically_relative(folder).string();
      if (first.empty() || name < first) first = name;
    });
    if (first.empty()) return;
    throw Error(Errc::io_failure, folder.string(),
                "holds '" + first +
                    "', of which nothing shows that such a run wrote it and nobody changed it; "
                    "give another output, or remove this folder first if it is not needed");
  }

  void check_output() const {
    std::error_code error;
    const auto status = std::filesystem::symlink_status(path_, error);
    if (!std::filesystem::exists(status)) return;
    if (overwrite_ == Overwrite::no) throw Error(Errc::output_exists, path_.string());
    if (std::filesystem::is_directory(status)) {
      if (overwrite_ != Overwrite::input) check_own(path_);
      return;
    }
    if (!std::filesystem::is_regular_file(status)) {
      throw Error(Errc::io_failure, path_.string(), "neither a folder nor a regular file");
    }
  }

  void make_stage() {
    mine_ = ::mkdir(stage_.c_str(), 0777) == 0;
    if (mine_) return;
    if (errno != EEXIST) detail::throw_errno(stage_, "mkdir");
    std::error_code error;
    if (!std::filesystem::is_directory(std::filesystem::symlink_status(stage_, error))) {
      detail::throw_errno(stage_, "mkdir", EEXIST);
    }
    const bool ours = has(kPlan) || has(kReplaced);
    detail::for_each_entry(stage_, [&](const auto& entry) {
      if (ours && is_own(stage_, entry, files_, Proof::name)) return;
      throw Error(Errc::io_failure, stage_.string(), "exists, but not from an interrupted run");
    });
  }

  /// Returns false if the process that held the stage removed it in the meantime.
  bool lock() {
    const auto plan = stage_ / kPlan;
    plan_ = detail::open_file(plan.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW, 0666);
    if (plan_.get() == -1 && errno == ENOENT) return false;
    if (plan_.get() == -1) detail::throw_errno(stage_, "open");
    if (::flock(plan_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) detail::throw_errno(stage_, "flock");
      mine_ = false;
      throw Error(Errc::io_failure, path_.string(), "another process is writing it");
    }
    struct stat held {
    }, named{};
    const bool same = ::fstat(plan_.get(), &held) == 0 && ::lstat(plan.c_str(), &named) == 0 &&
                      held.st_dev == named.st_dev && held.st_ino == named.st_ino;
    mine_ = mine_ || same;
    return same;
  }

  void prepare(Resume resume, std::string_view plan) {
    // An output that has been replaced is not a run to resume.
    if (resume == Resume::yes && holds_complete_files() && !has(kReplaced)) {
      if (read_plan() != plan) {
        throw Error(Errc::cannot_resume, stage_.string(), "without --resume, it starts over");
      }
    } else {
      clear([&](const std::filesystem::path& path) { return path != stage_ / kPlan; });
      if (::ftruncate(plan_.get(), 0) != 0) detail::throw_errno(stage_, "ftruncate");
      detail::write_at(plan_.get(), 0, std::as_bytes(std::span(plan)), stage_);
      if (detail::retry([&] { return ::fsync(plan_.get()); }) != 0) {
        detail::throw_errno(stage_, "fsync");
      }
    }
    clear([](const std::filesystem::path& path) {
      return detail::is_temporary_name(path.filename().string());
    });
    sync(stage_);
  }

  std::string read_plan() const {
    const InputFile file = InputFile::open(stage_ / kPlan, Access::read, Links::refuse);
    std::vector<std::byte> storage;
    const auto bytes = file.bytes(0, file.size(), storage);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// True also if this cannot be determined.
  bool holds_complete_files() const {
    bool found = false;
    std::error_code error;
    std::filesystem::directory_iterator at(stage_, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
      found = found || at->path().filename().string().ends_with(".safetensors");
    }
    return found || error;
  }

  template <class Choose>
  void clear(Choose choose) const {
    detail::for_each_entry(stage_, [&](const auto& entry) {
      if (!choose(entry.path())) return;
      const bool folder = is_folder(entry);
      if ((folder ? ::rmdir(entry.path().c_str()) : ::unlink(entry.path().c_str())) != 0) {
        detail::throw_errno(entry.path(), folder ? "rmdir" : "unlink");
      }
    });
  }

  /// Removes a file, or the files of such an output and then the folder.
  static void remove(const std::filesystem::path& path, const FileSums& expected, Proof proof) {
    std::error_code ignored;
    if (is_folder(std::filesystem::directory_entry(path, ignored))) {
      detail::for_each_entry(path, [&](const auto& entry) {
        // A folder is removed only once it is empty.
        if (is_own(path, entry, expected, proof)) std::filesystem::remove(entry.path(), ignored);
      });
    }
    std::filesystem::remove(path, ignored);
  }

  /// Returns false, with errno set, on failure.
  static bool sync_folder(const std::filesystem::path& folder) noexcept {
    const detail::Descriptor descriptor = detail::open_file(folder.c_str(), O_RDONLY | O_DIRECTORY);
    if (descriptor.get() == -1) return false;
    // Some file systems cannot sync a folder and report EINVAL.
    return detail::retry([&] { return ::fsync(descriptor.get()); }) == 0 || errno == EINVAL;
  }

  static void sync(const std::filesystem::path& folder) {
    if (!sync_folder(folder)) detail::throw_errno(folder, "fsync folder");
  }

  /// Counts the stages that this process has locked, for StageRemover.
  struct Held {
    Held() noexcept { ++count; }
    Held(const Held&) = delete;
    ~Held() { --count; }

    static inline std::atomic<int> count = 0;
  };

  std::filesystem::path path_;
  std::filesystem::path stage_;
  Overwrite overwrite_;
  FileSums files_;
  std::optional<Held> held_;
  detail::Descriptor plan_;
  bool mine_ = false;  // the stage: made or locked by this object, and not published
};

/// Removes the stage of an output unless something in it is complete. It is meant for a signal
/// handler after which no destructor runs. Construct it beforehand, because a handler cannot
/// allocate memory for the names.
class StageRemover {
 public:
  explicit StageRemover(const std::filesystem::path& output)
      : stage_(AtomicFolder::stage_of(output).string()),
        plan_(stage_ + "/" + AtomicFolder::kPlan),
        aside_(stage_ + ".plan") {}

  /// Makes only calls that are safe in a signal handler. Only rmdir() can tell whether the folder
  /// is otherwise empty, so the plan is moved aside first.
  void operator()() const noexcept {
    if (AtomicFolder::Held::count == 0) return;  // the stage may be that of another process
    if (!detail::rename_new(AT_FDCWD, plan_, aside_)) return;
    if (::rmdir(stage_.c_str()) == 0) {
      ::unlink(aside_.c_str());
    } else {
      ::rename(aside_.c_str(), plan_.c_str());
    }
  }

 private:
  std::string stage_;
  std::string plan_;
  std::string aside_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
