#include "execution/state_copy_files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace zz::execution::copy {

namespace {

timespec to_timespec(const statefs::Time& time) { return {time.seconds, static_cast<long>(time.nanoseconds)}; }

}  // namespace

Fd::~Fd() {
  if (value >= 0) ::close(value);
}

Error cannot(const std::string& what, const std::string& path, int number) {
  return Error{"the state cannot be copied: cannot " + what + " " + path + ": " + std::strerror(number)};
}

Result<std::vector<std::string>> names_of(int directory, const std::string& path) {
  const int again = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (again < 0) return cannot("read", path, errno);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(again), ::closedir);
  if (!stream) {
    const int error = errno;
    ::close(again);
    return cannot("read", path, error);
  }
  std::vector<std::string> out;
  errno = 0;
  while (const dirent* const entry = ::readdir(stream.get())) {
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") out.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return cannot("read", path, errno);
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::string> target_of(int directory, const std::string& name, const std::string& path) {
  std::string out(statefs::kTargetBytesMax + 1, '\0');
  const ssize_t size = ::readlinkat(directory, name.c_str(), out.data(), out.size());
  if (size < 0) return cannot("read", path, errno);
  out.resize(static_cast<std::size_t>(size));
  return out;
}

Result<Bytes> read_at(int file, std::uint64_t offset, std::uint64_t length, const std::string& path) {
  Bytes out(length);
  for (std::size_t done = 0; done < length;) {
    const ssize_t got = ::pread(file, out.data() + done, length - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return cannot("read", path, errno);
    if (got == 0) return Error{"the state cannot be copied: " + path + " changes between requests"};
    done += static_cast<std::size_t>(got);
  }
  return out;
}

std::uint64_t next_data(int file, std::uint64_t offset, std::uint64_t size) {
  const off_t found = ::lseek(file, static_cast<off_t>(offset), SEEK_DATA);
  if (found < 0) return errno == ENXIO ? size : offset;
  return std::min(static_cast<std::uint64_t>(found), size);
}

Result<void> write_at(int file, std::uint64_t offset, ByteView bytes, const std::string& path) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::pwrite(file, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return cannot("write", path, errno);
    done += static_cast<std::size_t>(put);
  }
  return {};
}

Result<void> set_attributes(int fd, const statefs::Record& record, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return cannot("read", path, errno);
  const bool is_owned = status.st_uid == record.uid && status.st_gid == record.gid;
  if (!is_owned && ::fchown(fd, record.uid, record.gid) != 0) return cannot("give away", path, errno);
  if (::fchmod(fd, record.mode & 07777) != 0) return cannot("set the permissions of", path, errno);
  const timespec times[2] = {to_timespec(record.accessed), to_timespec(record.modified)};
  if (::futimens(fd, times) != 0) return cannot("set the time of", path, errno);
  return {};
}

Result<void> set_link_attributes(int directory, const char* name, const statefs::Record& record,
                                 const std::string& path) {
  struct stat status {};
  if (::fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return cannot("read", path, errno);
  const bool is_owned = status.st_uid == record.uid && status.st_gid == record.gid;
  if (!is_owned && ::fchownat(directory, name, record.uid, record.gid, AT_SYMLINK_NOFOLLOW) != 0)
    return cannot("give away", path, errno);
  const timespec times[2] = {to_timespec(record.accessed), to_timespec(record.modified)};
  if (::utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW) != 0) return cannot("set the time of", path, errno);
  return {};
}

Result<void> empty_directory(int directory, const std::string& path, int depth) {
  // It may be one that not even its owner may change.
  if (::fchmod(directory, 0700) != 0) return cannot("empty", path, errno);
  const auto names = names_of(directory, path);
  if (!names) return Error{names.error()};
  for (const std::string& name : *names) {
    const std::string below = path + "/" + name;
    if (::unlinkat(directory, name.c_str(), 0) == 0) continue;
    if (errno != EISDIR) return cannot("remove", below, errno);
    if (depth == 0) return cannot("remove", below, ELOOP);
    if (::fchmodat(directory, name.c_str(), 0700, 0) != 0) return cannot("empty", below, errno);
    {
      const Fd fd(::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (fd.value < 0) return cannot("empty", below, errno);
      if (auto done = empty_directory(fd.value, below, depth - 1); !done) return done;
    }
    if (::unlinkat(directory, name.c_str(), AT_REMOVEDIR) != 0) return cannot("remove", below, errno);
  }
  return {};
}

}  // namespace zz::execution::copy
