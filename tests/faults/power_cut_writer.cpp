// What power_cut_test.cpp runs under the power cut library: writes, tells what it was promised, and is killed.
//
//   power_cut_writer files DIR kill|end      plain files, synced and not
//   power_cut_writer log DIR sync|async N    a durable log; a line per committed group, then killed

#include <fcntl.h>
#include <signal.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "agreement/durable_log.hpp"

namespace {

void demand(bool holds, const char* what) {
  if (holds) return;
  std::perror(what);
  std::exit(3);
}

void put(int fd, std::string_view text) {
  demand(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()), "write");
}

int make(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  demand(fd >= 0, path.c_str());
  return fd;
}

std::string take(int fd, off_t at) {
  char bytes[64];
  const ssize_t got = ::pread(fd, bytes, sizeof bytes, at);
  demand(got >= 0, "pread");
  return {bytes, static_cast<std::size_t>(got)};
}

void write_files(const std::string& dir) {
  const int synced = make(dir + "/synced");
  put(synced, "one ");
  put(synced, "two");
  demand(::fdatasync(synced) == 0, "fdatasync");

  put(make(dir + "/unsynced"), "one two");

  const int tail = make(dir + "/tail");
  put(tail, "one ");
  demand(::fsync(tail) == 0, "fsync");
  const iovec parts[] = {{const_cast<char*>("two "), 4}, {const_cast<char*>("three"), 5}};
  demand(::writev(tail, parts, 2) == 9, "writev");
  demand(take(tail, 0) == "one two three" && take(tail, 4) == "two three", "it does not read what it wrote");
  demand(::lseek(tail, 4, SEEK_SET) == 4, "lseek");
  char bytes[3];
  demand(::read(tail, bytes, sizeof bytes) == 3 && std::memcmp(bytes, "two", 3) == 0, "it does not read on");

  const int over = make(dir + "/overwritten");
  put(over, "one two");
  demand(::fsync(over) == 0, "fsync");
  demand(::pwrite(over, "ONE", 3, 0) == 3 && take(over, 0) == "ONE two", "pwrite");

  const int cut = make(dir + "/truncated");
  put(cut, "one two");
  demand(::fsync(cut) == 0, "fsync");
  demand(::ftruncate(cut, 3) == 0 && take(cut, 0) == "one", "ftruncate");

  const int closed = make(dir + "/closed");
  put(closed, "one two");
  demand(::close(closed) == 0, "close");
  demand(::sync_file_range(synced, 0, 0, SYNC_FILE_RANGE_WRITE) == 0, "sync_file_range");

  // Renamed before it is synced, by another descriptor: it is the file that counts, not its name or descriptor.
  const int moved = make(dir + "/moved.new");
  put(moved, "one two");
  demand(::rename((dir + "/moved.new").c_str(), (dir + "/moved").c_str()) == 0, "rename");
  const int again = ::open((dir + "/moved").c_str(), O_RDONLY | O_CLOEXEC);
  demand(again >= 0 && take(again, 0) == "one two" && ::fsync(again) == 0, "moved");
}

void write_log(const std::string& dir, bool sync, std::uint64_t groups) {
  zz::agreement::DurableLogOptions options;
  options.path = dir;
  options.sync = sync;
  auto opened = zz::agreement::DurableLog::open(options);
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().c_str());
    std::exit(3);
  }
  for (std::uint64_t n = 1; n <= groups; ++n) {
    zz::agreement::PreparedRecord record;
    record.n = zz::Seq{n};
    opened->log->add(zz::ServiceId{}, record);
    demand(opened->log->commit().ok(), "commit");
    std::printf("%llu\n", static_cast<unsigned long long>(n));
  }
  std::fflush(stdout);
  ::kill(::getpid(), SIGKILL);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view what = count > 3 ? arguments[1] : "";
  if (what == "files") {
    write_files(arguments[2]);
    if (std::string_view(arguments[3]) == "kill") ::kill(::getpid(), SIGKILL);
    return 0;
  }
  if (what == "log" && count > 4) {
    write_log(arguments[2], std::string_view(arguments[3]) == "sync", std::strtoull(arguments[4], nullptr, 10));
  }
  return 2;
}
