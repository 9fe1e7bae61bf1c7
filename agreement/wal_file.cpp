#include "agreement/wal_file.hpp"

#include <fcntl.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zz::agreement {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// Ahead by as much as there is, within these.
constexpr std::uint64_t kAheadBytesMin = 64u << 10;
constexpr std::uint64_t kAheadBytesMax = 2u << 20;

IOStatus failed(const std::string& what, const std::string& path) {
  const std::string text = what + " " + path;
  return errno == ENOSPC ? IOStatus::NoSpace(text, std::strerror(errno))
                         : IOStatus::IOError(text, std::strerror(errno));
}

class WalFile final : public rocksdb::FSWritableFile {
 public:
  WalFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  WalFile(const WalFile&) = delete;
  WalFile& operator=(const WalFile&) = delete;
  ~WalFile() override {
    if (fd_ >= 0) ::close(fd_);  // not closed: RocksDB went down with an error, the next start cuts the zeros off
  }

  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    if (written_ + data.size() > end_) {
      // No space for zeros does not mean no space for this.
      put(zeros().substr(0, std::clamp(end_, kAheadBytesMin, kAheadBytesMax)), end_);
    }
    if (!put({data.data(), data.size()}, written_)) return failed("While appending to", path_);
    written_ += data.size();
    return IOStatus::OK();
  }
  using FSWritableFile::Append;

  IOStatus Truncate(std::uint64_t size, const IOOptions&, IODebugContext*) override {
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return failed("While truncating", path_);
    written_ = end_ = size;
    return IOStatus::OK();
  }
  IOStatus Close(const IOOptions& options, IODebugContext* context) override {
    IOStatus status = Truncate(written_, options, context);
    if (::close(std::exchange(fd_, -1)) != 0 && status.ok()) status = failed("While closing", path_);
    return status;
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    return ::fdatasync(fd_) == 0 ? IOStatus::OK() : failed("While fdatasync", path_);
  }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    return ::fsync(fd_) == 0 ? IOStatus::OK() : failed("While fsync", path_);
  }
  bool IsSyncThreadSafe() const override { return true; }
  std::uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return written_; }

 private:
  static std::string_view zeros() {
    static const std::vector<char> kZeros(kAheadBytesMax);
    return {kZeros.data(), kZeros.size()};
  }

  bool put(std::string_view bytes, std::uint64_t at) {
    while (!bytes.empty()) {
      const ssize_t done = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return false;
      at += static_cast<std::uint64_t>(done);
      bytes.remove_prefix(static_cast<std::size_t>(done));
      end_ = std::max(end_, at);
    }
    return true;
  }

  int fd_;
  std::string path_;
  std::uint64_t written_ = 0;
  std::uint64_t end_ = 0;  // zeros from written_ to here
};

class WalFiles final : public rocksdb::FileSystemWrapper {
 public:
  WalFiles() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "zz write-ahead logs"; }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* context) override {
    if (!path.ends_with(".log")) return FileSystemWrapper::NewWritableFile(path, options, out, context);
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return failed("While opening", path);
    *out = std::make_unique<WalFile>(fd, path);
    return IOStatus::OK();
  }
};

}  // namespace

rocksdb::Env* wal_environment() {
  static const std::unique_ptr<rocksdb::Env> kEnvironment = rocksdb::NewCompositeEnv(std::make_shared<WalFiles>());
  return kEnvironment.get();
}

}  // namespace zz::agreement
