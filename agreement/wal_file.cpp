#include "agreement/wal_file.hpp"

#include <fcntl.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

namespace zz::agreement {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr std::size_t kBlockBytes = 4'096;      // what direct writes are aligned to
constexpr std::size_t kBufferBytes = 1u << 20;  // of one write
// Ahead by as much as there is, within these.
constexpr std::uint64_t kAheadBytesMin = 64u << 10;
constexpr std::uint64_t kAheadBytesMax = kBufferBytes;

IOStatus failed(const std::string& what, const std::string& path) {
  const std::string text = what + " " + path;
  return errno == ENOSPC ? IOStatus::NoSpace(text, std::strerror(errno))
                         : IOStatus::IOError(text, std::strerror(errno));
}

struct Free {
  void operator()(char* bytes) const { std::free(bytes); }
};
using Buffer = std::unique_ptr<char, Free>;

Buffer zeroed_buffer() {
  Buffer buffer(static_cast<char*>(std::aligned_alloc(kBlockBytes, kBufferBytes)));
  if (buffer) std::memset(buffer.get(), 0, kBufferBytes);
  return buffer;
}

// Direct: whole blocks from a buffer of ours, the last one filled up with zeros and written again by the next append,
// as the page cache would.
class DirectWal final : public rocksdb::FSWritableFile {
 public:
  DirectWal(int fd, std::string path, Buffer buffer) : fd_(fd), path_(std::move(path)), buffer_(std::move(buffer)) {}
  DirectWal(const DirectWal&) = delete;
  DirectWal& operator=(const DirectWal&) = delete;
  ~DirectWal() override {
    if (fd_ >= 0) ::close(fd_);  // not closed: RocksDB gave up after an error; the next start cuts the zeros off
  }

  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    for (std::size_t taken = 0; taken < data.size();) {
      const std::size_t tail = written_ % kBlockBytes;  // of the last block, at the buffer's begin
      const std::size_t size = std::min(data.size() - taken, kBufferBytes - tail);
      const std::size_t whole = (tail + size + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
      std::memcpy(buffer_.get() + tail, data.data() + taken, size);
      std::memset(buffer_.get() + tail + size, 0, whole - tail - size);
      grow(written_ - tail + whole);
      if (!put(buffer_.get(), whole, written_ - tail)) return failed("While appending to", path_);
      taken += size;
      written_ += size;
      std::memmove(buffer_.get(), buffer_.get() + (tail + size) / kBlockBytes * kBlockBytes, written_ % kBlockBytes);
    }
    return IOStatus::OK();
  }

  IOStatus Truncate(std::uint64_t, const IOOptions&, IODebugContext*) override {
    return IOStatus::NotSupported("a write-ahead log only grows", path_);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override {
    const bool cut = ::ftruncate(fd_, static_cast<off_t>(written_)) == 0;
    const IOStatus status = cut ? IOStatus::OK() : failed("While truncating", path_);
    if (::close(std::exchange(fd_, -1)) != 0 && cut) return failed("While closing", path_);
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
  // Zeros ahead of `end`. No space for them does not mean no space for what comes.
  void grow(std::uint64_t end) {
    static const Buffer kZeros = zeroed_buffer();
    while (end > end_ && kZeros && put(kZeros.get(), std::clamp(end_, kAheadBytesMin, kAheadBytesMax), end_)) {
    }
  }

  bool put(const char* bytes, std::size_t size, std::uint64_t at) {
    while (size > 0) {
      const ssize_t done = ::pwrite(fd_, bytes, size, static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return false;
      const std::size_t blocks = static_cast<std::size_t>(done) / kBlockBytes * kBlockBytes;
      if (blocks == 0) {
        errno = EFBIG;  // disks fill up block by block; only a limit on the size of files cuts one
        return false;
      }
      bytes += blocks;
      size -= blocks;
      at += blocks;
      end_ = std::max(end_, at);
    }
    return true;
  }

  int fd_;
  std::string path_;
  Buffer buffer_;
  std::uint64_t written_ = 0;
  std::uint64_t end_ = 0;  // zeros from written_ to here
};

class WalFiles final : public rocksdb::FileSystemWrapper {
 public:
  WalFiles() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "zz write-ahead logs"; }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* context) override {
    const bool wal = path.ends_with(".log");
    const int fd = wal ? ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0644) : -1;
    Buffer buffer = fd >= 0 ? zeroed_buffer() : nullptr;
    // Some file systems, such as tmpfs, know no direct writes; RocksDB's own file names every other trouble.
    if (!buffer) {
      if (fd >= 0) ::close(fd);
      return FileSystemWrapper::NewWritableFile(path, options, out, context);
    }
    *out = std::make_unique<DirectWal>(fd, path, std::move(buffer));
    return IOStatus::OK();
  }
};

}  // namespace

rocksdb::Env* wal_environment() {
  static const std::unique_ptr<rocksdb::Env> kEnvironment = rocksdb::NewCompositeEnv(std::make_shared<WalFiles>());
  return kEnvironment.get();
}

}  // namespace zz::agreement
