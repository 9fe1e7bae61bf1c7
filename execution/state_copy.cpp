#include "execution/state_copy.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <iterator>
#include <map>
#include <utility>

#include "execution/state_copy_files.hpp"

namespace zz::execution {

using statefs::Inode;
using statefs::kBlockBytes;

namespace {

constexpr int kDepthMax = 128;  // each level holds a descriptor
constexpr std::uint64_t kPieceBytes = 16 * kBlockBytes;
constexpr std::size_t kListed = 1'024;
constexpr std::size_t kWantsMax = 512;
constexpr std::size_t kVisits = 1 << 16;
// How long after a change another may leave a file's times as they are: a tick of the kernel's clock, and a second or
// two on file systems whose times are whole seconds.
constexpr std::int64_t kTickNanoseconds = 20'000'000;
constexpr std::int64_t kCoarseSeconds = 2;

using copy::cannot;
using copy::Fd;

Result<void> taken(const statefs::Outcome& outcome, const std::string& path) {
  if (outcome.error == ECANCELED) return Error{"stopped"};
  if (outcome.error != 0) return cannot("take", path, outcome.error);
  return {};
}

statefs::Time now() {
  timespec at{};
  ::clock_gettime(CLOCK_REALTIME, &at);
  return {at.tv_sec, static_cast<std::uint32_t>(at.tv_nsec)};
}

statefs::Time time_of(const timespec& at) { return {at.tv_sec, static_cast<std::uint32_t>(at.tv_nsec)}; }

Result<void> check_kind(std::uint32_t mode, const std::string& path) {
  if (S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode)) return {};
  const char* const kind = S_ISSOCK(mode) ? "a socket" : S_ISFIFO(mode) ? "a pipe" : "a device";
  return Error{"the state cannot be copied: " + path + " is " + kind};
}

Result<void> check_depth(int depth, const std::string& path) {
  if (depth <= kDepthMax) return {};
  return Error{"the state cannot be copied: " + path + " is nested too deeply"};
}

std::uint8_t type_of(std::uint32_t mode) { return static_cast<std::uint8_t>((mode & statefs::kTypeMask) >> 12); }

}  // namespace

// ---- the state ---------------------------------------------------------------------------------------------------

StateCopy::StateCopy(statefs::FileSystem& files, state::ObjectStore& store, std::mutex& head, std::string path,
                     OnMissing on_missing)
    : files_(files), store_(store), head_(head), path_(std::move(path)), on_missing_(std::move(on_missing)) {}

void StateCopy::supplied() {
  const std::lock_guard lock(head_);
  ++arrivals_;
  changed_.notify_all();
}

void StateCopy::stop() {
  const std::lock_guard lock(head_);
  is_stopped_ = true;
  changed_.notify_all();
}

void StateCopy::go_on() {
  const std::lock_guard lock(head_);
  is_stopped_ = false;
}

// False: stopped.
bool StateCopy::wait(std::unique_lock<std::mutex>& head, const std::vector<state::Want>& wants) {
  const std::uint64_t before = arrivals_;
  if (!wants.empty()) {
    head.unlock();
    on_missing_(wants);
    head.lock();
  }
  changed_.wait(head, [&] { return is_stopped_ || arrivals_ != before; });
  return !is_stopped_;
}

template <class Operation>
auto StateCopy::run(Operation operation) {
  std::unique_lock lock(head_);
  for (;;) {
    auto outcome = operation();
    // Whoever replaced the state will stop this.
    const bool is_other = outcome.error == ESTALE && !files_.is_current();
    if (!is_stopped_ && !is_other && outcome.missing.empty()) return outcome;
    if (is_stopped_ || !wait(lock, outcome.missing)) {
      outcome.missing.clear();
      outcome.error = ECANCELED;
      return outcome;
    }
  }
}

template <class Operation>
Result<void> StateCopy::change(const std::string& path, Operation operation) {
  ++changes_;
  return taken(run(std::move(operation)), path);
}

Result<std::vector<statefs::ListedEntry>> StateCopy::entries_of(Inode directory, const std::string& path) {
  std::vector<statefs::ListedEntry> out;
  for (std::uint64_t after = 2;;) {
    statefs::ListOutcome listed = run([&] { return files_.list(directory, after, kListed); });
    if (auto good = taken(listed, path); !good) return Error{good.error()};
    if (listed.entries.empty()) break;
    after = listed.entries.back().offset;
    std::move(listed.entries.begin(), listed.entries.end(), std::back_inserter(out));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

// Many parts with each round trip, as long as something is absent from the first part to the last.
Result<void> StateCopy::fetch_all() {
  std::unique_lock lock(head_);
  bool is_clean = true;
  for (state::ObjectId cursor{};;) {
    if (is_stopped_) return Error{"stopped"};
    const auto missing = store_.missing(cursor, kWantsMax, kVisits);
    if (!missing.wants.empty()) {
      is_clean = false;
      cursor = std::max(cursor, missing.wants.front().toward);
      if (!wait(lock, missing.wants)) return Error{"stopped"};
    } else if (missing.next) {
      cursor = *missing.next;
    } else if (is_clean) {
      return {};
    } else {
      is_clean = true;
      cursor = {};
    }
  }
}

StateCopy::Signature StateCopy::signature_of(const struct stat& status) {
  return {status.st_dev, status.st_ino, status.st_size, time_of(status.st_mtim), time_of(status.st_ctim)};
}

bool StateCopy::is_certain(const Signature& signature, const statefs::Time& read_at) {
  statefs::Time from = signature.changed;
  if (from.nanoseconds == 0) {
    from.seconds += kCoarseSeconds;
  } else {
    const std::int64_t nanoseconds = from.nanoseconds + kTickNanoseconds;
    from.seconds += nanoseconds / 1'000'000'000;
    from.nanoseconds = static_cast<std::uint32_t>(nanoseconds % 1'000'000'000);
  }
  return from < read_at;
}

// ---- save --------------------------------------------------------------------------------------------------------

class StateCopy::Saving {
 public:
  Saving(StateCopy& copy, const Mapped& mapped) : copy_(copy), files_(copy.files_), mapped_(mapped) {}

  Result<void> run() {
    const Fd root(::open(copy_.path_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (root.value < 0) return cannot("read", copy_.path_, errno);
    if (auto done = directory(root, copy_.path_, statefs::kRootInode, 0); !done) return done;
    copy_.known_ = std::move(known_);
    return {};
  }

 private:
  struct Place {  // of a name
    int directory;
    Inode parent;
    std::string name;
    std::string path;
  };
  using Found = std::optional<statefs::ListedEntry>;

  Result<void> directory(const Fd& fd, const std::string& path, Inode inode, int depth) {
    if (auto good = check_depth(depth, path); !good) return good;
    struct stat status {};
    if (::fstat(fd.value, &status) != 0) return cannot("read", path, errno);
    if (auto same = attributes(inode, status, path); !same) return Error{same.error()};
    auto names = copy::names_of(fd.value, path);
    if (!names) return Error{names.error()};
    auto entries = copy_.entries_of(inode, path);
    if (!entries) return Error{entries.error()};
    // What is gone first: its room may be needed.
    for (const statefs::ListedEntry& entry : *entries) {
      if (std::binary_search(names->begin(), names->end(), entry.name)) continue;
      if (auto gone = remove(inode, entry, path); !gone) return gone;
    }
    auto at = entries->begin();
    for (std::string& name : *names) {
      while (at != entries->end() && at->name < name) ++at;
      const Found found = at != entries->end() && at->name == name ? Found(*at) : std::nullopt;
      std::string place = path + "/" + name;
      if (auto done = entry({fd.value, inode, std::move(name), std::move(place)}, found, depth); !done) return done;
    }
    return {};
  }

  Result<void> entry(const Place& place, Found found, int depth) {
    ++copy_.entries_;
    const statefs::Time read_at = now();
    struct stat status {};
    if (::fstatat(place.directory, place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
      return cannot("read", place.path, errno);
    if (auto good = check_kind(status.st_mode, place.path); !good) return good;
    if (S_ISDIR(status.st_mode)) {
      auto inode = inode_for(place, found, status, {});
      if (!inode) return Error{inode.error()};
      const Fd fd(::openat(place.directory, place.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (fd.value < 0) return cannot("read", place.path, errno);
      return directory(fd, place.path, *inode, depth + 1);
    }
    if (status.st_nlink > 1) {
      const auto [first, is_first] = links_.try_emplace({status.st_dev, status.st_ino});
      if (!is_first) return link(place, found, first->second);
      auto inode = content(place, std::move(found), status, read_at);
      if (!inode) return Error{inode.error()};
      first->second = *inode;
      return {};
    }
    auto inode = content(place, std::move(found), status, read_at);
    if (!inode) return Error{inode.error()};
    return {};
  }

  Result<void> link(const Place& place, const Found& found, Inode to) {
    if (found && found->inode == to) return {};
    if (found) {
      if (auto gone = remove(place.parent, *found, place.path); !gone) return gone;
    }
    return copy_.change(place.path, [&] { return files_.link(to, place.parent, place.name); });
  }

  // A file or symbolic link; the inode.
  Result<Inode> content(const Place& place, Found found, const struct stat& status, const statefs::Time& read_at) {
    const Signature signature = signature_of(status);
    const bool is_link = S_ISLNK(status.st_mode);
    if (found && found->type == type_of(status.st_mode) && !known_.contains(found->inode.value)) {
      const auto before = copy_.known_.find(found->inode.value);
      const bool is_same =
          mapped_ && before != copy_.known_.end() && before->second.is_certain && before->second.signature == signature;
      if (is_same) {
        known_.emplace(found->inode.value, Known{signature, !mapped_->contains(status.st_ino)});
        return found->inode;
      }
    }
    std::string target;
    if (is_link) {
      auto read = copy::target_of(place.directory, place.name, place.path);
      if (!read) return Error{read.error()};
      target = std::move(*read);
    }
    auto inode = inode_for(place, found, status, target);
    if (!inode) return inode;
    if (!is_link) {
      if (auto done = bytes(place, *inode, static_cast<std::uint64_t>(status.st_size)); !done)
        return Error{done.error()};
    }
    const bool is_mapped = !mapped_ || mapped_->contains(status.st_ino);
    known_.emplace(inode->value, Known{signature, !is_mapped && is_certain(signature, read_at)});
    return inode;
  }

  // That of the name in the state, made if there is none that can stay, with the attributes of the directory's.
  Result<Inode> inode_for(const Place& place, const Found& found, const struct stat& status,
                          const std::string& target) {
    bool stays = found && found->type == type_of(status.st_mode) && !known_.contains(found->inode.value);
    if (stays && S_ISLNK(status.st_mode)) {
      const statefs::BytesOutcome is = copy_.run([&] { return files_.target(found->inode); });
      if (auto good = taken(is, place.path); !good) return Error{good.error()};
      stays = is.bytes.text() == target;
    }
    Inode inode;
    if (stays) {
      inode = found->inode;
    } else {
      if (found) {
        if (auto gone = remove(place.parent, *found, place.path); !gone) return Error{gone.error()};
      }
      ++copy_.changes_;
      const statefs::NewInode what{status.st_mode, {status.st_uid, status.st_gid}, 0, target};
      const statefs::AttributesOutcome made = copy_.run([&] { return files_.make(place.parent, place.name, what); });
      if (auto good = taken(made, place.path); !good) return Error{good.error()};
      inode = made.attributes.inode;
    }
    if (auto same = attributes(inode, status, place.path); !same) return Error{same.error()};
    return inode;
  }

  Result<void> attributes(Inode inode, const struct stat& status, const std::string& path) {
    const statefs::AttributesOutcome is = copy_.run([&] { return files_.stat(inode); });
    if (auto good = taken(is, path); !good) return good;
    const statefs::Record& record = is.attributes.record;
    if (record.mode == status.st_mode && record.uid == status.st_uid && record.gid == status.st_gid) return {};
    statefs::Change change;
    change.permissions = status.st_mode & 07777;
    change.uid = status.st_uid;
    change.gid = status.st_gid;
    return copy_.change(path, [&] { return files_.change(inode, change); });
  }

  Result<void> remove(Inode directory, const statefs::ListedEntry& entry, const std::string& path, int depth = 0) {
    if (auto good = check_depth(depth, path); !good) return good;
    if (entry.type != type_of(S_IFDIR)) return copy_.change(path, [&] { return files_.unlink(directory, entry.name); });
    auto below = copy_.entries_of(entry.inode, path);
    if (!below) return Error{below.error()};
    for (const statefs::ListedEntry& each : *below) {
      if (auto gone = remove(entry.inode, each, path, depth + 1); !gone) return gone;
    }
    return copy_.change(path, [&] { return files_.rmdir(directory, entry.name); });
  }

  // Only blocks that differ are written, so that equal bytes leave the record as it is.
  Result<void> bytes(const Place& place, Inode inode, std::uint64_t size) {
    ++copy_.read_;
    const Fd file(::openat(place.directory, place.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (file.value < 0) return cannot("read", place.path, errno);
    const statefs::AttributesOutcome is = copy_.run([&] { return files_.stat(inode); });
    if (auto good = taken(is, place.path); !good) return good;
    if (is.attributes.record.size != size) {
      statefs::Change change;
      change.size = size;
      if (auto done = copy_.change(place.path, [&] { return files_.change(inode, change); }); !done) return done;
    }
    for (std::uint64_t offset = 0; offset < size; offset += kPieceBytes) {
      auto data = next_data(file, inode, offset, size, place.path);
      if (!data) return Error{data.error()};
      offset = *data;
      if (offset >= size) break;
      auto piece = copy::read_at(file.value, offset, std::min(kPieceBytes, size - offset), place.path);
      if (!piece) return Error{piece.error()};
      if (auto done = compare(inode, offset, *piece, place.path); !done) return done;
    }
    return {};
  }

  // The block from which on either of both has data.
  Result<std::uint64_t> next_data(const Fd& file, Inode inode, std::uint64_t offset, std::uint64_t size,
                                  const std::string& path) {
    const std::uint64_t here = copy::next_data(file.value, offset, size);
    if (here < offset + kBlockBytes) return offset;
    const statefs::OffsetOutcome there = copy_.run([&] { return files_.seek(inode, offset, statefs::SeekTo::kData); });
    if (there.error == ENXIO) return here / kBlockBytes * kBlockBytes;
    if (auto good = taken(there, path); !good) return Error{good.error()};
    return std::min(here, there.offset) / kBlockBytes * kBlockBytes;
  }

  Result<void> compare(Inode inode, std::uint64_t offset, ByteView is, const std::string& path) {
    const statefs::ReadOutcome before = copy_.run([&] { return files_.read(inode, offset, is.size()); });
    if (auto good = taken(before, path); !good) return good;
    std::size_t at = 0;
    std::optional<std::size_t> differs;  // from there on
    const auto write = [&](std::size_t to) -> Result<void> {
      const std::size_t from = *std::exchange(differs, std::nullopt);
      return copy_.change(path, [&] { return files_.write(inode, offset + from, is.subspan(from, to - from)); });
    };
    for (const SharedBytes& piece : before.pieces) {
      const bool is_equal = std::memcmp(piece.data(), is.data() + at, piece.size()) == 0;
      if (!is_equal && !differs) differs = at;
      if (is_equal && differs) {
        if (auto done = write(at); !done) return done;
      }
      at += piece.size();
    }
    return differs ? write(at) : Result<void>();
  }

  StateCopy& copy_;
  statefs::FileSystem& files_;
  const Mapped& mapped_;
  KnownFiles known_;                                // whose inodes have their first name already
  std::map<std::pair<dev_t, ino_t>, Inode> links_;  // of files with several names: the state's inode
};

Result<void> StateCopy::save(Micros agreed, const Mapped& mapped) {
  {
    const std::lock_guard lock(head_);
    files_.set_time(agreed);
  }
  return Saving(*this, mapped).run();
}

// ---- restore -----------------------------------------------------------------------------------------------------

class StateCopy::Restoring {
 public:
  explicit Restoring(StateCopy& copy) : copy_(copy), files_(copy.files_) {}

  Result<void> run() {
    if (auto here = copy_.fetch_all(); !here) return here;
    const Fd root(::open(copy_.path_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (root.value < 0) return cannot("write", copy_.path_, errno);
    if (auto empty = copy::empty_directory(root.value, copy_.path_, kDepthMax); !empty) return empty;
    const statefs::AttributesOutcome is = copy_.run([&] { return files_.stat(statefs::kRootInode); });
    if (auto good = taken(is, copy_.path_); !good) return good;
    if (auto done = directory(root, copy_.path_, is.attributes, 0); !done) return done;
    return know();
  }

 private:
  Result<void> directory(const Fd& fd, const std::string& path, const statefs::Attributes& of, int depth) {
    if (auto good = check_depth(depth, path); !good) return good;
    auto entries = copy_.entries_of(of.inode, path);
    if (!entries) return Error{entries.error()};
    for (const statefs::ListedEntry& each : *entries) {
      if (auto done = entry(fd.value, each, path + "/" + each.name, depth); !done) return done;
    }
    return copy::set_attributes(fd.value, of.record, path);  // once nothing in it changes any more
  }

  Result<void> entry(int directory_fd, const statefs::ListedEntry& entry, const std::string& path, int depth) {
    const char* const name = entry.name.c_str();
    const statefs::AttributesOutcome is = copy_.run([&] { return files_.stat(entry.inode); });
    if (auto good = taken(is, path); !good) return good;
    const statefs::Record& record = is.attributes.record;
    if (auto good = check_kind(record.mode, path); !good) return good;
    if (record.is_directory()) {
      if (::mkdirat(directory_fd, name, 0700) != 0) return cannot("make", path, errno);
      const Fd fd(::openat(directory_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (fd.value < 0) return cannot("write", path, errno);
      return directory(fd, path, is.attributes, depth + 1);
    }
    const auto [first, is_first] = paths_.try_emplace(entry.inode.value, path);
    if (!is_first) {
      if (::linkat(AT_FDCWD, first->second.c_str(), directory_fd, name, 0) != 0) return cannot("link", path, errno);
      return {};
    }
    if (record.is_link()) {
      const std::string target(record.tail.text());
      if (::symlinkat(target.c_str(), directory_fd, name) != 0) return cannot("make", path, errno);
      return copy::set_link_attributes(directory_fd, name, record, path);
    }
    const Fd file(::openat(directory_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.value < 0) return cannot("make", path, errno);
    if (auto done = bytes(file.value, is.attributes, path); !done) return done;
    return copy::set_attributes(file.value, record, path);
  }

  Result<void> bytes(int file, const statefs::Attributes& of, const std::string& path) {
    const std::uint64_t size = of.record.size;
    if (::ftruncate(file, static_cast<off_t>(size)) != 0) return cannot("write", path, errno);
    for (std::uint64_t offset = 0; offset < size;) {
      const statefs::OffsetOutcome data =
          copy_.run([&] { return files_.seek(of.inode, offset, statefs::SeekTo::kData); });
      if (data.error == ENXIO) break;
      if (auto good = taken(data, path); !good) return good;
      offset = data.offset;
      const statefs::OffsetOutcome hole =
          copy_.run([&] { return files_.seek(of.inode, offset, statefs::SeekTo::kHole); });
      if (auto good = taken(hole, path); !good) return good;
      const std::uint64_t length = std::min(kPieceBytes, hole.offset - offset);
      const statefs::ReadOutcome read = copy_.run([&] { return files_.read(of.inode, offset, length); });
      if (auto good = taken(read, path); !good) return good;
      for (const SharedBytes& piece : read.pieces) {
        if (auto done = copy::write_at(file, offset, piece.view(), path); !done) return done;
        offset += piece.size();
      }
    }
    return {};
  }

  // Nobody writes there before the service is started, so what a later change will show in is judged now.
  Result<void> know() {
    KnownFiles known;
    const statefs::Time at = now();
    for (const auto& [inode, path] : paths_) {
      struct stat status {};
      if (::lstat(path.c_str(), &status) != 0) return cannot("read", path, errno);
      const Signature signature = signature_of(status);
      known.emplace(inode, Known{signature, is_certain(signature, at)});
    }
    copy_.known_ = std::move(known);
    return {};
  }

  StateCopy& copy_;
  statefs::FileSystem& files_;
  std::unordered_map<std::uint64_t, std::string> paths_;  // of files and symbolic links, the first of each
};

Result<void> StateCopy::restore() {
  known_.clear();
  return Restoring(*this).run();
}

}  // namespace zz::execution
