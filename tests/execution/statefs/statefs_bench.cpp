// What a state file system costs against a plain directory:  statefs_bench PLAIN_DIRECTORY [FILES [BYTES]]
// Each line: microseconds per operation on the plain directory, on the mount, and their ratio. Programs' own cost is in
// neither.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "execution/statefs/fuse_mount.hpp"

namespace {

using namespace zz;
using namespace zz::execution;

double micros_of(int operations, const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double, std::micro> passed = std::chrono::steady_clock::now() - begin;
  return passed.count() / operations;
}

struct Line {
  std::string what;
  double micros;
};

void check(bool good, const char* what) {
  if (!good) {
    std::perror(what);
    std::exit(1);
  }
}

std::vector<Line> measure(const std::string& directory, int files, std::size_t bytes) {
  const std::string data(bytes, 'd');
  std::string buffer(bytes, '\0');
  const auto path = [&](const std::string& prefix, int i) { return directory + "/" + prefix + std::to_string(i); };
  std::vector<Line> out;
  const auto each = [&](const std::string& what, int operations, const std::function<void(int)>& run) {
    out.push_back({what, micros_of(operations, [&] {
                     for (int i = 0; i < operations; ++i) run(i);
                   })});
  };
  const std::size_t piece = 32'768;  // what nginx writes of a body at once
  each("put: create, write, rename", files, [&](int i) {
    const int file = ::open(path("tmp", i).c_str(), O_CREAT | O_WRONLY | O_EXCL, 0644);
    check(file >= 0, "create");
    for (std::size_t at = 0; at < bytes; at += piece) {
      const std::size_t size = std::min(piece, bytes - at);
      check(::write(file, data.data() + at, size) == static_cast<ssize_t>(size), "write");
    }
    ::close(file);
    check(::rename(path("tmp", i).c_str(), path("f", i).c_str()) == 0, "rename");
  });
  each("stat", files, [&](int i) {
    struct stat ignored {};
    check(::stat(path("f", i).c_str(), &ignored) == 0, "stat");
  });
  each("get: open, fstat, read", files, [&](int i) {
    const int file = ::open(path("f", i).c_str(), O_RDONLY);
    struct stat ignored {};
    check(file >= 0 && ::fstat(file, &ignored) == 0, "open");
    check(::read(file, buffer.data(), bytes) == static_cast<ssize_t>(bytes), "read");
    ::close(file);
  });
  each("list all", 5, [&](int) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) static_cast<void>(entry.path());
  });
  const int one = ::open(path("one", 0).c_str(), O_CREAT | O_RDWR, 0644);
  check(one >= 0 && ::ftruncate(one, 64 << 20) == 0, "ftruncate");
  each("write 4 KiB somewhere in 64 MiB", 5'000, [&](int i) {
    check(::pwrite(one, data.data(), 4'096, static_cast<off_t>(i) * 7'919 % 16'384 * 4'096) == 4'096, "pwrite");
  });
  ::close(one);
  each("delete", files, [&](int i) { check(::unlink(path("f", i).c_str()) == 0, "unlink"); });
  check(::unlink(path("one", 0).c_str()) == 0, "unlink");
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: statefs_bench PLAIN_DIRECTORY [FILES [BYTES]]\n");
    return 2;
  }
  const int files = argc > 2 ? std::atoi(argv[2]) : 5'000;
  const auto bytes = static_cast<std::size_t>(argc > 3 ? std::atoi(argv[3]) : 20'000);
  const std::string plain = std::string(argv[1]) + "/statefs-bench-plain";
  const std::string mounted = std::string(argv[1]) + "/statefs-bench-mount";
  std::filesystem::create_directories(plain);
  std::filesystem::create_directories(mounted);
  auto opened = state::ObjectStore::open({.path = "", .memory_bytes = 4ull << 30});
  statefs::FileSystem fs(*opened->store);
  std::mutex head;
  if (!fs.format({0, 0}, 0755).ok()) return 1;
  {
    auto mount = statefs::FuseMount::mount(fs, head, {.path = mounted}, {});
    if (!mount) {
      std::fprintf(stderr, "%s\n", mount.error().c_str());
      return 1;
    }
    const std::vector<Line> before = measure(plain, files, bytes);
    const std::vector<Line> after = measure(mounted, files, bytes);
    for (std::size_t i = 0; i < before.size(); ++i) {
      std::printf("%-34s %9.1f %9.1f   %.1f\n", before[i].what.c_str(), before[i].micros, after[i].micros,
                  after[i].micros / before[i].micros);
    }
    const int file = ::open((mounted + "/open").c_str(), O_CREAT | O_RDWR, 0644);
    const double settle = micros_of(2'000, [&] {
      for (int i = 0; i < 2'000; ++i) check((*mount)->settle().ok(), "settle");
    });
    ::close(file);
    std::printf("%-34s %9s %9.1f\n", "settle, a file open for writing", "-", settle);
  }
  std::filesystem::remove_all(plain);
  std::filesystem::remove_all(mounted);
  return 0;
}
