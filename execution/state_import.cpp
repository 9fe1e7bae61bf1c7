#include "execution/state_import.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

namespace zz::execution {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kDepthMax = 64;
constexpr std::size_t kPieceBytes = 256 << 10;

Error cannot(const std::string& what, const fs::path& path, const std::string& why) {
  return Error{"initial_state: cannot " + what + " " + path.string() + ": " + why};
}

// Of a state that is all there: what fails is room or a limit.
Result<void> taken(const statefs::Outcome& outcome, const fs::path& path) {
  if (outcome.ok()) return {};
  return cannot("take", path, outcome.error != 0 ? std::strerror(outcome.error) : "the state is not all there");
}

}  // namespace

StateImport::StateImport(statefs::FileSystem& files, std::mutex& head, std::string from, const statefs::Owner& owner)
    : files_(files), head_(head), from_(std::move(from)), owner_(owner) {}

Result<bool> StateImport::step(std::size_t bytes) {
  if (!std::exchange(has_begun_, true)) {
    if (auto begun = begin(); !begun) return Error{begun.error()};
  }
  for (std::size_t done = 0; done < bytes;) {
    if (file_.is_open()) {
      auto read = read_on();
      if (!read) return Error{read.error()};
      done += *read;
      continue;
    }
    while (!way_.empty() && way_.back().next == way_.back().names.size()) way_.pop_back();
    if (way_.empty()) return true;
    Directory& directory = way_.back();
    const fs::path path = directory.path / directory.names[directory.next++];
    if (auto took = take(path, directory.inode); !took) return Error{took.error()};
    done += 4'096;
  }
  return false;
}

Result<void> StateImport::begin() {
  std::uint32_t permissions = 0755;
  struct stat status {};
  if (!from_.empty()) {
    if (::stat(from_.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
      return Error{"initial_state: " + from_.string() + " is not a directory"};
    permissions = status.st_mode & 07777;
  }
  {
    const std::lock_guard lock(head_);
    files_.set_time(Micros{0});
    if (auto made = taken(files_.format(owner_, permissions), from_); !made) return made;
  }
  if (from_.empty()) return {};
  return enter(from_, statefs::kRootInode);
}

Result<void> StateImport::enter(const fs::path& path, statefs::Inode inode) {
  if (way_.size() > kDepthMax) return Error{"initial_state: " + path.string() + " is nested too deeply"};
  Directory directory{path, inode, {}, 0};
  std::error_code error;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
    directory.names.push_back(it->path().filename());
  if (error) return cannot("read", path, error.message());
  std::sort(directory.names.begin(), directory.names.end());
  way_.push_back(std::move(directory));
  return {};
}

Result<void> StateImport::take(const fs::path& path, statefs::Inode parent) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return cannot("read", path, std::strerror(errno));
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode))
    return Error{"initial_state: " + path.string() + " is neither a regular file nor a directory"};
  statefs::Inode inode;
  {
    const std::lock_guard lock(head_);
    const auto made = files_.make(parent, path.filename().string(), {status.st_mode, owner_, 0, {}});
    if (auto good = taken(made, path); !good) return good;
    inode = made.attributes.inode;
  }
  if (S_ISDIR(status.st_mode)) return enter(path, inode);
  file_.open(path, std::ios::binary);
  if (!file_) return cannot("read", path, std::strerror(errno));
  file_path_ = path;
  file_inode_ = inode;
  file_offset_ = 0;
  return {};
}

Result<std::size_t> StateImport::read_on() {
  std::string piece(kPieceBytes, '\0');
  file_.read(piece.data(), static_cast<std::streamsize>(piece.size()));
  const auto size = static_cast<std::size_t>(file_.gcount());
  if (file_.bad()) return cannot("read", file_path_, std::strerror(errno));
  const bool is_end = file_.eof();
  const std::lock_guard lock(head_);
  if (auto wrote = taken(files_.write(file_inode_, file_offset_, as_bytes({piece.data(), size})), file_path_); !wrote)
    return Error{wrote.error()};
  file_offset_ += size;
  if (is_end) {
    file_.close();
    file_.clear();
  }
  return size;
}

}  // namespace zz::execution
