#pragma once

// A small language for what POSIX says of files, run on any directory: on the state file system, and on a plain
// directory as the reference, so that a table that is wrong shows.
//
// One step a line:   [UID:GID[,GROUP]…|] OPERATION ARGUMENTS [= ERRNO]
//
// Without "=" the step must succeed. `%N%` in a word stands for N times 'n', `%path%` for a path that is too long.
// Numbers with a leading zero are octal. Before each step that may change something the time goes on; `times FILE mc`
// says which times of the file are that of the last such step: m or -, then c or -.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace zz::execution::statefs::testing {

// The time that changes get: what it was before the next step, and how a file's time compares with it.
struct ScriptClock {
  std::function<void()> advance;
  std::function<bool(const timespec&)> is_now;
  bool keeps_named_accesses = true;  // else any access time is that of the change
};

// The machine's clock as file systems use it: in ticks, but exact for a file whose times were read since its last
// change (Linux since 6.13). So the next tick that counts is one after now, not one after the tick before.
inline ScriptClock machine_clock() {
  struct State {
    timespec now{};
  };
  const auto state = std::make_shared<State>();
  const auto is_before = [](const timespec& a, const timespec& b) {
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
  };
  return {[=] {
            timespec before{};
            ::clock_gettime(CLOCK_REALTIME, &before);
            do {
              ::clock_gettime(CLOCK_REALTIME_COARSE, &state->now);
            } while (!is_before(before, state->now));
          },
          [=](const timespec& time) { return !is_before(time, state->now); }};
}

inline const std::map<std::string, int>& errno_names() {
  static const std::map<std::string, int> names = {
      {"EPERM", EPERM},     {"ENOENT", ENOENT},       {"EACCES", EACCES}, {"EEXIST", EEXIST},
      {"ENOTDIR", ENOTDIR}, {"EISDIR", EISDIR},       {"EINVAL", EINVAL}, {"ENAMETOOLONG", ENAMETOOLONG},
      {"ELOOP", ELOOP},     {"ENOTEMPTY", ENOTEMPTY}, {"ENXIO", ENXIO},   {"EFBIG", EFBIG},
      {"EBUSY", EBUSY}};
  return names;
}

class PosixScript {
 public:
  explicit PosixScript(ScriptClock clock) : clock_(std::move(clock)) {}
  ~PosixScript() {
    for (const auto& [name, file] : held_) ::close(file);
  }
  PosixScript(const PosixScript&) = delete;
  PosixScript& operator=(const PosixScript&) = delete;

  // In the working directory. Whoever is not root stops before the first step as somebody else.
  void run(const std::string& script, const std::string& where) {
    const bool is_root = ::geteuid() == 0;
    std::istringstream lines(script);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t first = line.find_first_not_of(' ');
      if (first == std::string::npos) continue;
      SCOPED_TRACE(where + ": " + line.substr(first));
      std::string as;
      if (const std::size_t bar = line.find('|'); bar != std::string::npos) {
        as = line.substr(first, bar - first);
        line = line.substr(bar + 1);
      }
      if (!as.empty() && !is_root) return;
      step(as, line);
    }
  }

 private:
  void step(const std::string& as, const std::string& line) {
    std::istringstream stream(line);
    words_.clear();
    int expected = 0;
    for (std::string word; stream >> word;) {
      if (word == "=") {
        stream >> word;
        ASSERT_TRUE(errno_names().contains(word)) << word;
        expected = errno_names().at(word);
      } else {
        words_.push_back(expand(word));
      }
    }
    if (!is_look(words_[0])) clock_.advance();
    become(as);
    errno = 0;
    const int got = operate();
    const int error = got < 0 ? errno : 0;
    become("");
    EXPECT_EQ(std::strerror(error), std::string(std::strerror(expected)));
  }

  static bool is_look(const std::string& what) {
    static const std::set<std::string> looks = {"mode",  "type",  "device", "nlink",  "size", "owner",
                                                "mtime", "atime", "times",  "target", "same", "access"};
    return looks.contains(what);
  }

  static std::string expand(const std::string& word) {
    const std::size_t begin = word.find('%');
    const std::size_t end = word.find('%', begin + 1);
    if (end == std::string::npos) return word;
    const std::string what = word.substr(begin + 1, end - begin - 1);
    std::string out;
    if (what == "path") {
      for (int i = 0; i < 2'100; ++i) out += "./";
    } else {
      out.assign(std::stoul(what), 'n');
    }
    return word.substr(0, begin) + out + word.substr(end + 1);
  }

  // Of this thread alone. Back to the file system's root with "".
  static void become(const std::string& as) {
    if (::geteuid() != 0) return;
    std::vector<gid_t> groups;
    uid_t uid = 0;
    if (!as.empty()) {
      const std::size_t colon = as.find(':');
      uid = static_cast<uid_t>(std::stoul(as.substr(0, colon)));
      std::istringstream list(as.substr(colon + 1));
      for (std::string group; std::getline(list, group, ',');) groups.push_back(static_cast<gid_t>(std::stoul(group)));
    }
    if (groups.empty()) groups.push_back(0);
    ::setfsuid(0);
    ASSERT_EQ(::syscall(SYS_setgroups, groups.size(), groups.data()), 0);
    ::setfsgid(groups.front());
    ::setfsuid(uid);
  }

  const std::string& word(std::size_t i) const { return words_.at(i); }
  const char* path(std::size_t i) const { return words_.at(i).c_str(); }
  long number(std::size_t i) const { return std::stol(words_.at(i), nullptr, 0); }
  mode_t mode(std::size_t i) const { return static_cast<mode_t>(number(i)); }
  static int closed(int file) { return file < 0 ? file : ::close(file); }

  int operate() {
    const std::string& what = word(0);
    if (what == "mkdir") return ::mkdir(path(1), mode(2));
    if (what == "rmdir") return ::rmdir(path(1));
    if (what == "unlink") return ::unlink(path(1));
    if (what == "create") return closed(::open(path(1), O_CREAT | O_EXCL | O_WRONLY, mode(2)));
    if (what == "mkfifo") return ::mkfifo(path(1), mode(2));
    if (what == "mknod") return make_node();
    if (what == "link") return ::link(path(1), path(2));
    if (what == "symlink") return ::symlink(path(1), path(2));
    if (what == "rename") return ::rename(path(1), path(2));
    if (what == "chmod") return ::chmod(path(1), mode(2));
    if (what == "chown") return ::chown(path(1), static_cast<uid_t>(number(2)), static_cast<gid_t>(number(3)));
    if (what == "lchown") return ::lchown(path(1), static_cast<uid_t>(number(2)), static_cast<gid_t>(number(3)));
    if (what == "truncate") return ::truncate(path(1), number(2));
    if (what == "utimens") return set_times();
    if (what == "open") return closed(::open(path(1), flags(word(2)), 0644));
    if (what == "access") {  // access(2) itself asks for the real user, who does not change here
      struct stat ignored {};
      return ::lstat(path(1), &ignored);
    }
    return operate_on_open(what);
  }

  int operate_on_open(const std::string& what) {
    if (what == "hold") return (held_[word(1)] = ::open(path(1), O_RDWR)) < 0 ? -1 : 0;
    if (what == "drop") return ::close(std::exchange(held_[word(1)], -1));
    const bool is_held = held_.contains(word(1)) && held_[word(1)] >= 0;
    const bool is_for_writing = what == "write" || what == "ftruncate" || what == "fallocate" || what == "append";
    if (!is_for_writing && !is_held) return look(what);
    const int file = is_held ? held_[word(1)] : ::open(path(1), O_WRONLY | (what == "append" ? O_APPEND : 0));
    if (file < 0) return -1;
    int out = 0;
    if (what == "ftruncate") {
      out = ::ftruncate(file, number(2));
    } else if (what == "fallocate") {
      const int error = ::posix_fallocate(file, number(2), number(3));
      out = error == 0 ? 0 : -1;
      errno = error;
    } else if (is_for_writing) {
      out = ::write(file, path(2), word(2).size()) < 0 ? -1 : 0;
    } else {
      struct stat status {};
      out = ::fstat(file, &status);
      compare(what, status);
    }
    const int error = errno;
    if (!is_held) ::close(file);
    errno = error;
    return out;
  }

  int look(const std::string& what) {
    if (what == "target") {
      char buffer[5'000];
      const ssize_t size = ::readlink(path(1), buffer, sizeof buffer);
      if (size < 0) return -1;
      EXPECT_EQ(std::string(buffer, static_cast<std::size_t>(size)), word(2));
      return 0;
    }
    struct stat status {};
    if (::lstat(path(1), &status) != 0) return -1;
    if (what == "same") {
      struct stat other {};
      if (::lstat(path(2), &other) != 0) return -1;
      EXPECT_EQ(status.st_ino, other.st_ino);
      return 0;
    }
    compare(what, status);
    return 0;
  }

  void compare(const std::string& what, const struct stat& status) {
    if (what == "mode") {
      EXPECT_EQ(status.st_mode & 07777, mode(2)) << std::oct << status.st_mode;
    } else if (what == "type") {
      EXPECT_EQ(status.st_mode & S_IFMT, type(word(2)));
    } else if (what == "device") {
      EXPECT_EQ(status.st_rdev, ::makedev(static_cast<unsigned>(number(2)), static_cast<unsigned>(number(3))));
    } else if (what == "nlink") {
      EXPECT_EQ(status.st_nlink, static_cast<nlink_t>(number(2)));
    } else if (what == "size") {
      EXPECT_EQ(status.st_size, number(2));
    } else if (what == "owner") {
      EXPECT_EQ(std::to_string(status.st_uid) + ":" + std::to_string(status.st_gid), word(2));
    } else if (what == "mtime") {
      EXPECT_EQ(status.st_mtim.tv_sec, number(2));
    } else if (what == "atime") {
      if (clock_.keeps_named_accesses) {
        EXPECT_EQ(status.st_atim.tv_sec, number(2));
      }
    } else if (what == "times") {
      EXPECT_EQ(clock_.is_now(status.st_mtim), word(2).at(0) == 'm') << "modified";
      EXPECT_EQ(clock_.is_now(status.st_ctim), word(2).at(1) == 'c') << "changed";
    } else {
      ADD_FAILURE() << "no such operation: " << what;
    }
  }

  static mode_t type(const std::string& letter) {
    static const std::map<std::string, mode_t> types = {{"f", S_IFREG}, {"d", S_IFDIR}, {"l", S_IFLNK}, {"p", S_IFIFO},
                                                        {"c", S_IFCHR}, {"b", S_IFBLK}, {"s", S_IFSOCK}};
    return types.at(letter);
  }
  int make_node() {
    const dev_t device =
        words_.size() > 4 ? ::makedev(static_cast<unsigned>(number(4)), static_cast<unsigned>(number(5))) : 0;
    return ::mknod(path(1), type(word(2)) | mode(3), device);
  }
  int set_times() {
    timespec times[2] = {};
    for (std::size_t i = 0; i < 2; ++i) {
      const std::string& text = word(2 + i);
      times[i].tv_nsec = text == "now" ? UTIME_NOW : text == "omit" ? UTIME_OMIT : 0;
      if (times[i].tv_nsec == 0) times[i].tv_sec = number(2 + i);
    }
    return ::utimensat(AT_FDCWD, path(1), times, 0);
  }
  static int flags(const std::string& letters) {
    static const std::map<char, int> all = {{'r', O_RDONLY},    {'w', O_WRONLY},   {'b', O_RDWR},
                                            {'c', O_CREAT},     {'x', O_EXCL},     {'t', O_TRUNC},
                                            {'d', O_DIRECTORY}, {'n', O_NOFOLLOW}, {'i', O_NONBLOCK}};
    int out = O_CLOEXEC;
    for (const char letter : letters) out |= all.at(letter);
    return out;
  }

  ScriptClock clock_;
  std::vector<std::string> words_;
  std::map<std::string, int> held_;
};

}  // namespace zz::execution::statefs::testing
