#pragma once

// SmallDisk: a file system of a test's own and of a few megabytes, to be full. It is mounted in a mount namespace of
// this process's own: nobody else sees it, and it goes with the process. A thread sees the mounts of the namespace that
// it was started in, so the first one is to be made before the test has others, in a program of its own.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace zz::test {

// From now on this process's mounts are its own. False: not permitted.
inline bool mounts_are_own() {
  static const bool own =
      ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return own;
}

class SmallDisk {
 public:
  // On that directory. Requires mounts_are_own().
  SmallDisk(std::string at, unsigned megabytes) : at_(std::move(at)) {
    std::filesystem::create_directories(at_);
    const std::string options = "size=" + std::to_string(megabytes) + "m,mode=700";
    mounted_ = ::mount("zz", at_.c_str(), "tmpfs", 0, options.c_str()) == 0;
    EXPECT_TRUE(mounted_) << std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  [[nodiscard]] bool mounted() const { return mounted_; }
  // Takes every byte that is left, as a file of that name.
  void fill(const std::string& name = "ballast") const {
    const int fd = ::open((at_ + "/" + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    const std::vector<char> bytes(4'096, 'x');
    while (::write(fd, bytes.data(), bytes.size()) > 0) continue;
    EXPECT_EQ(errno, ENOSPC);
    ::close(fd);
  }
  void empty(const std::string& name = "ballast") const { EXPECT_TRUE(std::filesystem::remove(at_ + "/" + name)); }

 private:
  std::string at_;
  bool mounted_ = false;
};

}  // namespace zz::test
