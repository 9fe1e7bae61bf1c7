// As fsx does: random reads, writes, mappings, truncations and holes on a file, against a model of its bytes.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/prng.hpp"
#include "tests/execution/statefs/mounted_files.hpp"

namespace zz::execution::statefs::testing {
namespace {

constexpr std::size_t kSizeMax = 200'000;
constexpr std::size_t kPage = 4'096;

class Exerciser {
 public:
  Exerciser(std::string path, std::uint64_t seed) : path_(std::move(path)), prng_(seed) { reopen(); }
  ~Exerciser() {
    unmap();
    ::close(file_);
  }
  Exerciser(const Exerciser&) = delete;
  Exerciser& operator=(const Exerciser&) = delete;

  // False: something is wrong, and was said.
  bool step() {
    switch (prng_.below(12)) {
      case 0:
      case 1:
      case 2:
        return write();
      case 3:
      case 4:
        return read();
      case 5:
      case 6:
        return write_mapped();
      case 7:
      case 8:
        return read_mapped();
      case 9:
        return resize();
      case 10:
        return prng_.below(2) == 0 ? punch() : allocate();
      default:
        if (prng_.below(20) == 0) reopen();
        return is_size_right();
    }
  }
  [[nodiscard]] const std::string& model() const { return model_; }
  bool is_all_right() { return check("at the end", read_range(0, kSizeMax + 1), model_); }

 private:
  bool check(const char* what, const std::string& got, const std::string& expected) {
    if (got == expected) return true;
    const auto differ = std::mismatch(got.begin(), got.end(), expected.begin(), expected.end());
    ADD_FAILURE() << what << ": " << got.size() << " bytes for " << expected.size() << ", the first that differs is "
                  << differ.first - got.begin();
    return false;
  }
  static bool check(const char* what, bool good) {
    if (!good) ADD_FAILURE() << what << ": " << std::strerror(errno);
    return good;
  }
  void reopen() {
    unmap();
    if (file_ >= 0) ::close(file_);
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT, 0644);
    check("open", file_ >= 0);
    // As large as the file may ever be; only what lies within it is touched.
    void* const map = ::mmap(nullptr, kSizeMax + kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (check("mmap", map != MAP_FAILED)) map_ = static_cast<char*>(map);
  }
  void unmap() {
    if (map_ != nullptr) ::munmap(std::exchange(map_, nullptr), kSizeMax + kPage);
  }
  struct Range {
    std::size_t offset;
    std::size_t length;
  };
  // Small files, whole pages and blocks are the cases of interest.
  Range some_range(std::size_t end) {
    const std::size_t within = prng_.below(3) == 0 ? std::min<std::size_t>(end, 2'000) : end;
    std::size_t offset = prng_.below(within + 1);
    if (prng_.below(3) == 0) offset = offset / kPage * kPage;
    std::size_t length = prng_.below(prng_.below(4) == 0 ? 60'000 : 3'000) + 1;
    if (prng_.below(4) == 0) length = (length + kPage - 1) / kPage * kPage;
    return {offset, std::min(length, end - offset)};
  }
  std::string some_bytes(std::size_t length) {
    std::string bytes(length, '\0');
    if (prng_.below(5) != 0) {
      const std::uint64_t seed = prng_.next();
      for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<char>(seed >> i % 57);
    }
    return bytes;
  }
  std::string read_range(std::size_t offset, std::size_t length) {
    std::string bytes(length, '\0');
    const ssize_t got = ::pread(file_, bytes.data(), length, static_cast<off_t>(offset));
    check("pread", got >= 0);
    bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return bytes;
  }

  bool write() {
    const Range range = some_range(kSizeMax);
    const std::string bytes = some_bytes(range.length);
    if (bytes.empty()) return true;
    if (model_.size() < range.offset + range.length) model_.resize(range.offset + range.length);
    model_.replace(range.offset, range.length, bytes);
    return check("pwrite", ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(range.offset)) ==
                               static_cast<ssize_t>(bytes.size()));
  }
  bool read() {
    const Range range = some_range(kSizeMax);
    const std::size_t from = std::min(range.offset, model_.size());
    return check("read", read_range(range.offset, range.length),
                 range.offset >= model_.size() ? std::string() : model_.substr(from, range.length));
  }
  bool write_mapped() {
    const Range range = some_range(model_.size());
    const std::string bytes = some_bytes(range.length);
    std::copy(bytes.begin(), bytes.end(), map_ + range.offset);
    model_.replace(range.offset, range.length, bytes);
    return prng_.below(8) != 0 || check("msync", ::msync(map_, kSizeMax, MS_SYNC) == 0);
  }
  bool read_mapped() {
    const Range range = some_range(model_.size());
    return check("mapped", std::string(map_ + range.offset, range.length), model_.substr(range.offset, range.length));
  }
  bool resize() {
    const std::size_t size = prng_.below(prng_.below(3) == 0 ? 2'000 : kSizeMax);
    model_.resize(size);
    return check("ftruncate", ::ftruncate(file_, static_cast<off_t>(size)) == 0);
  }
  bool punch() {
    const Range range = some_range(kSizeMax);
    if (range.length == 0) return true;
    for (std::size_t i = range.offset; i < std::min(range.offset + range.length, model_.size()); ++i) model_[i] = '\0';
    return check("punch", ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) == 0);
  }
  bool allocate() {
    const Range range = some_range(kSizeMax);
    if (range.length == 0) return true;
    model_.resize(std::max(model_.size(), range.offset + range.length));
    return check("fallocate",
                 ::fallocate(file_, 0, static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) == 0);
  }
  bool is_size_right() {
    struct stat status {};
    return check("fstat", ::fstat(file_, &status) == 0 && status.st_size == static_cast<off_t>(model_.size()));
  }

  std::string path_;
  Prng prng_;
  std::string model_;
  int file_ = -1;
  char* map_ = nullptr;
};

// ZZ_FSX_OPERATIONS: how many.
std::uint64_t operations() {
  const char* const text = std::getenv("ZZ_FSX_OPERATIONS");
  return text == nullptr ? 6'000 : std::strtoull(text, nullptr, 10);
}

TEST(FuseFsx, TheModelIsThatOfAPlainFile) {
  execution::testing::TempDir dir;
  Exerciser exerciser((dir.path / "f").string(), 1);
  for (int i = 0; i < 6'000; ++i) ASSERT_TRUE(exerciser.step()) << i;
  EXPECT_TRUE(exerciser.is_all_right());
}

constexpr std::uint64_t kOperationsPerTime = 512;  // then the agreed time changes

// In a process of its own, that does not have /dev/fuse: munmap(2) waits for what it has written back while it holds
// the lock that the server's next mmap(2) needs, if both are threads of one process, and none of them goes on. Says on
// `ask` how far it is, and goes on at an answer; leaves what the file "one" must hold in `model`.
[[noreturn]] void exercise(const Mounted& mounted, const std::string& model, int ask, int answer) {
  ask = ::fcntl(ask, F_DUPFD, 1'000);  // out of the way of what follows
  answer = ::fcntl(answer, F_DUPFD, 1'000);
  ::dup2(ask, 3);
  ::dup2(answer, 4);
  ::close_range(5, ~0u, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  {
    Exerciser one(mounted.at("one"), 2);
    Exerciser other(mounted.at("other"), 3);
    char go = 0;
    for (std::uint64_t i = 0; i < operations(); ++i) {
      if (i % kOperationsPerTime == 0 && (::write(3, &i, sizeof i) != sizeof i || ::read(4, &go, 1) != 1)) ::_exit(3);
      if ((i % 2 == 0 ? one : other).step()) continue;
      std::fprintf(stderr, "operation %llu\n", static_cast<unsigned long long>(i));
      ::_exit(1);
    }
    if (!one.is_all_right() || !other.is_all_right()) ::_exit(2);
    std::ofstream(model, std::ios::binary) << one.model();
  }
  ::_exit(0);
}

TEST(FuseFsx, FilesOfTheStateHoldWhatWasWrittenHoweverItWas) {
  Mounted mounted;
  SKIP_WITHOUT_FUSE(mounted);
  execution::testing::TempDir told;
  const std::string model = (told.path / "model").string();
  int ask[2];
  int answer[2];
  ASSERT_EQ(::pipe2(ask, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(answer, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) exercise(mounted, model, ask[1], answer[0]);
  ::close(ask[1]);
  ::close(answer[0]);
  for (std::uint64_t i = 0; ::read(ask[0], &i, sizeof i) == sizeof i;) {
    EXPECT_TRUE(mounted.mount->settle().ok());
    mounted.set_time(static_cast<std::int64_t>(i) * 1'000);
    ASSERT_EQ(::write(answer[1], "", 1), 1);
  }
  ::close(ask[0]);
  ::close(answer[1]);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(mounted.mount->settle().ok());
  std::ifstream file(model, std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  EXPECT_FALSE(expected.empty());
  const std::lock_guard lock(mounted.head);
  const auto found = mounted.files->fs.lookup(kRootInode, "one");
  ASSERT_TRUE(found.ok());
  EXPECT_TRUE(text_of(mounted.files->fs.read(found.attributes.inode, 0, kSizeMax)) == expected) << "in the state";
  EXPECT_EQ(mounted.files->fs.counters().damaged, 0u);
}

}  // namespace
}  // namespace zz::execution::statefs::testing
