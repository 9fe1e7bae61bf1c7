#include "execution/statefs/fuse_mount.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/execution/statefs/mounted_files.hpp"

namespace zz::execution::statefs::testing {
namespace {

namespace stdfs = std::filesystem;
using execution::testing::TempDir;

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_all(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}
struct stat stat_of(const std::string& path) {
  struct stat out {};
  EXPECT_EQ(::lstat(path.c_str(), &out), 0) << path;
  return out;
}
int shell(const std::string& directory, const std::string& script) {
  return std::system(("cd '" + directory + "' && { " + script + "\n} >/dev/null 2>&1").c_str());
}

TEST(FuseMount, GivesProgramsOrdinaryFilesWhoseTimesAreAgreed) {
  Mounted mounted;
  SKIP_WITHOUT_FUSE(mounted);
  const std::string file = mounted.at("file");
  const std::string large(3'000'000, 'z');
  write_all(file, large);
  EXPECT_EQ(read_all(file), large);
  EXPECT_EQ(stat_of(file).st_mtim.tv_sec, 1'700'000'000);
  EXPECT_EQ(stat_of(file).st_ino, 2u);
  mounted.set_time(1'700'000'001'500'000);
  { std::ofstream(file, std::ios::binary | std::ios::app) << "more"; }
  EXPECT_EQ(stat_of(file).st_mtim.tv_nsec, 500'000'000);
  EXPECT_EQ(stat_of(file).st_ctim.tv_sec, 1'700'000'001);
  EXPECT_EQ(stat_of(file).st_size, 3'000'004);

  stdfs::create_directories(mounted.at("a/b/c"));
  stdfs::rename(file, mounted.at("a/b/c/moved"));
  EXPECT_FALSE(stdfs::exists(file));
  stdfs::create_hard_link(mounted.at("a/b/c/moved"), mounted.at("again"));
  EXPECT_EQ(stat_of(mounted.at("again")).st_nlink, 2u);
  EXPECT_EQ(stat_of(mounted.at("a")).st_nlink, 3u);
  stdfs::create_symlink("a/b", mounted.at("way"));
  EXPECT_EQ(stdfs::read_symlink(mounted.at("way")), "a/b");
  EXPECT_EQ(read_all(mounted.at("way/c/moved")).size(), 3'000'004u);
  stdfs::resize_file(mounted.at("again"), 5);
  EXPECT_EQ(read_all(mounted.at("a/b/c/moved")), "zzzzz");
  EXPECT_EQ(::renameat2(AT_FDCWD, mounted.at("again").c_str(), AT_FDCWD, mounted.at("way").c_str(), RENAME_NOREPLACE),
            -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(::renameat2(AT_FDCWD, mounted.at("again").c_str(), AT_FDCWD, mounted.at("way").c_str(), RENAME_EXCHANGE),
            0);
  EXPECT_EQ(read_all(mounted.at("way")), "zzzzz");
  EXPECT_EQ(::rmdir(mounted.at("a").c_str()), -1);
  EXPECT_EQ(errno, ENOTEMPTY);

  const std::string attribute = mounted.at("way");
  EXPECT_EQ(::setxattr(attribute.c_str(), "user.colour", "red", 3, 0), 0);
  char value[16] = {};
  EXPECT_EQ(::getxattr(attribute.c_str(), "user.colour", value, sizeof value), 3);
  EXPECT_EQ(::getxattr(attribute.c_str(), "user.none", value, sizeof value), -1);
  EXPECT_EQ(errno, ENODATA);

  EXPECT_EQ(::chmod(attribute.c_str(), 04'755), 0);
  EXPECT_EQ(stat_of(attribute).st_mode & 07777, 04'755u);
  const timespec times[] = {{5, 6}, {7, 8}};
  EXPECT_EQ(::utimensat(AT_FDCWD, attribute.c_str(), times, 0), 0);
  EXPECT_EQ(stat_of(attribute).st_mtim.tv_nsec, 8) << "a time that the service names is its own";
  EXPECT_EQ(::utimensat(AT_FDCWD, attribute.c_str(), nullptr, 0), 0);
  EXPECT_EQ(stat_of(attribute).st_atim.tv_sec, 1'700'000'001) << "now is the agreed time";
}

TEST(FuseMount, KeepsLocksHolesAndWhatIsUnlinkedButOpen) {
  Mounted mounted;
  SKIP_WITHOUT_FUSE(mounted);
  const std::string path = mounted.at("f");
  const int one = ::open(path.c_str(), O_RDWR | O_CREAT, 0644);
  const int other = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(one, 0);
  EXPECT_EQ(::flock(one, LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(::flock(other, LOCK_EX | LOCK_NB), -1);
  EXPECT_EQ(::pwrite(one, "end", 3, 1'000'000), 3);
  EXPECT_EQ(::lseek(one, 0, SEEK_DATA), 1'000'000 / kBlockBytes * kBlockBytes);
  EXPECT_LT(stat_of(path).st_blocks, 100);
  EXPECT_EQ(::fallocate(one, 0, 0, 2'000'000), 0);
  EXPECT_EQ(stat_of(path).st_size, 2'000'000);
  EXPECT_EQ(::fsync(one), 0);
  EXPECT_EQ(::unlink(path.c_str()), 0);
  const Digest without = mounted.root();
  EXPECT_EQ(::pwrite(one, "after", 5, 10), 5);
  char bytes[5];
  EXPECT_EQ(::pread(other, bytes, 5, 10), 5);
  EXPECT_EQ(std::string(bytes, 5), "after");
  EXPECT_EQ(mounted.root(), without) << "it is no state any more";
  ::close(one);
  ::close(other);
}

TEST(FuseMount, WhatSharedMappingsHoldIsInTheStateOnceItIsSettled) {
  Mounted mounted;
  SKIP_WITHOUT_FUSE(mounted);
  const int file = ::open(mounted.at("f").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_GE(file, 0);
  constexpr std::size_t kSize = 40 << 20;
  ASSERT_EQ(::ftruncate(file, kSize), 0);
  auto* const bytes = static_cast<char*>(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  ASSERT_NE(bytes, MAP_FAILED);
  ::close(file);
  for (int turn = 1; turn <= 5; ++turn) {
    mounted.set_time(1'700'000'000'000'000 + turn * 1'000'000);
    for (std::size_t at = 0; at < kSize; at += 4'096) bytes[at + turn] = static_cast<char>(turn);
    ASSERT_TRUE(mounted.mount->settle().ok());
    const std::lock_guard lock(mounted.head);
    const std::string now = text_of(mounted.files->fs.read(Inode{2}, 0, kSize));
    ASSERT_EQ(now.size(), kSize);
    for (std::size_t at = 0; at < kSize; at += 4'096) ASSERT_EQ(now[at + turn], turn) << at;
    ASSERT_EQ(mounted.files->fs.stat(Inode{2}).attributes.record.modified.seconds, 1'700'000'000 + turn);
  }
  ::munmap(bytes, kSize);
  EXPECT_GT(mounted.mount->counters().written_back, 0u);
}

TEST(FuseMount, TwoReplicasThatRunTheSameProgramsHaveEqualStates) {
  Mounted one;
  SKIP_WITHOUT_FUSE(one);
  Mounted other;
  const std::string script = R"(
    umask 022
    mkdir -p src/deep/er tmp
    for i in $(seq 1 150); do echo "file $i" > src/f$i; done
    cp -r src copy && tar cf all.tar --sort=name src && mkdir out && tar xf all.tar -C out
    rm src/f1* && mv copy/deep copy/moved && ln -s ../copy src/link && ln src/f2 hard
    truncate -s 100000 sparse && dd if=/dev/zero of=sparse bs=1000 seek=3 count=7 conv=notrunc
    chmod 640 src/f3 && touch src/f4 && touch -d 2001-02-03 src/f5
    sort -r -o sorted all.tar; sed -i s/file/line/ src/f20; )";
  ASSERT_EQ(shell(one.dir.path.string(), script), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // another time of day: it must not show
  ASSERT_EQ(shell(other.dir.path.string(), "ls -lR . ; " + script + " ls -lR .; grep -r file . ; true"), 0);
  ASSERT_TRUE(one.mount->settle().ok());
  ASSERT_TRUE(other.mount->settle().ok());
  EXPECT_EQ(one.root(), other.root());
  EXPECT_EQ(shell(one.dir.path.string(), "cmp out/src/f100 copy/f100"), 0);
  const std::lock_guard lock(one.head);
  EXPECT_EQ(one.files->fs.counters().damaged, 0u);
}

constexpr const char* kTransactions = R"py(
import sqlite3, sys
database = sqlite3.connect("database", isolation_level=None)
database.execute("create table t (id integer primary key, text text)")
database.execute("create index i on t (text)")
for n in range(int(sys.argv[1])):
    database.execute("begin")
    for k in range(5):
        database.execute("insert into t (text) values (?)", ("%d-%d" % (n * 7919 % 1000, k) * 9,))
    database.execute("delete from t where id = ?", (n * 3,))
    database.execute("commit" if n % 10 else "rollback")
assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
)py";

TEST(FuseMount, TheKernelKeepsPermissionsAndClearsWhatAWriteByOthersMustClear) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  Mounted mounted;
  SKIP_WITHOUT_FUSE(mounted);
  const std::string script = R"sh(
    set -e
    echo secret > secret; chmod 600 secret; chmod 1777 .; mkdir group; chgrp 1234 group; chmod 2777 group; umask 022
    setpriv --reuid=65534 --regid=65534 --clear-groups sh -e -c '
      echo a > own; chmod 6755 own; echo b >> own; test ! -u own; test ! -g own
      chmod 4755 own; truncate -s 1 own; test ! -u own
      mkdir group/below; echo c > group/file
      if cat secret; then exit 1; fi; if rm -f secret; then exit 1; fi
      if chown 0 own; then exit 1; fi; if chmod 777 secret; then exit 1; fi'
    test "$(stat -c %u:%g:%a own)" = 65534:65534:755
    test "$(stat -c %g:%a group/below)" = 1234:2755
    test "$(stat -c %g:%a group/file)" = 1234:644
    chmod 4755 own; chown 1:1 own; test ! -u own)sh";
  EXPECT_EQ(shell(mounted.dir.path.string(), script), 0);
}

// ZZ_SQLITE_TRANSACTIONS: how many.
TEST(FuseMount, ADatabaseThatRunsTheSameTransactionsHasEqualStates) {
  if (std::system("python3 -c 'import sqlite3' 2>/dev/null") != 0) GTEST_SKIP() << "python3 without sqlite3";
  Mounted one;
  SKIP_WITHOUT_FUSE(one);
  Mounted other;
  const char* const transactions = std::getenv("ZZ_SQLITE_TRANSACTIONS");
  TempDir scripts;
  write_all((scripts.path / "transactions.py").string(), kTransactions);
  const std::string command =
      "python3 " + (scripts.path / "transactions.py").string() + " " + (transactions == nullptr ? "200" : transactions);
  ASSERT_EQ(shell(one.dir.path.string(), command), 0);
  ASSERT_EQ(shell(other.dir.path.string(), command), 0);
  ASSERT_TRUE(one.mount->settle().ok());
  ASSERT_TRUE(other.mount->settle().ok());
  EXPECT_TRUE(read_all(one.at("database")) == read_all(other.at("database")));
  EXPECT_EQ(one.root(), other.root()) << "metadata and inodes too";
}

TEST(FuseMount, WhatIsAbsentIsFetchedWhenItIsTouched) {
  Mounted one;
  SKIP_WITHOUT_FUSE(one);
  ASSERT_EQ(shell(one.dir.path.string(), "mkdir d && for i in $(seq 1 60); do seq $i 20000 > d/f$i; done"), 0);
  const state::Snapshot snapshot = [&] {
    const std::lock_guard lock(one.head);
    return take(*one.files->store);
  }();
  Mounted woken(std::make_unique<Files>(*one.files, snapshot));
  const std::string change = "sed -i s/7/x/ d/f7 && cat d/f9 d/f8 > d/new && echo more >> d/f10 && rm d/f11 && ls d";
  ASSERT_EQ(shell(woken.dir.path.string(), change), 0);
  EXPECT_GE(woken.mount->counters().parked, 5u);
  {
    const std::scoped_lock both(one.head, woken.head);
    EXPECT_LT(woken.files->store->counters().supplied, one.files->store->totals().objects / 2) << "what it touched";
  }
  ASSERT_EQ(shell(one.dir.path.string(), change), 0);
  EXPECT_EQ(woken.root(), one.root());
}

TEST(FuseMount, EndsWhileFilesAreOpenAndARequestWaits) {
  Mounted one;
  SKIP_WITHOUT_FUSE(one);
  write_all(one.at("f"), std::string(100'000, 'f'));
  const state::Snapshot snapshot = [&] {
    const std::lock_guard lock(one.head);
    return take(*one.files->store);
  }();
  Files absent(*one.files, snapshot);
  ASSERT_TRUE(absent.run([&] { return absent.fs.stat(kRootInode); }).ok());  // so that this thread can open it
  std::mutex head;
  TempDir dir;
  std::mutex told_mutex;
  std::condition_variable told;
  bool is_told = false;
  auto mounted = FuseMount::mount(absent.fs, head, {.path = dir.path.string()}, [&](const std::vector<Want>&) {
    const std::lock_guard lock(told_mutex);
    is_told = true;
    told.notify_all();
  });
  ASSERT_TRUE(mounted) << mounted.error();
  std::unique_ptr<FuseMount> mount = std::move(*mounted);
  const int open_directory = ::open(dir.path.string().c_str(), O_RDONLY | O_DIRECTORY);
  int error = 0;
  std::thread reader([&] {
    const int file = ::open((dir.path / "f").c_str(), O_RDONLY);
    error = file < 0 ? errno : 0;
  });
  {
    std::unique_lock lock(told_mutex);
    told.wait(lock, [&] { return is_told; });
  }
  mount.reset();
  reader.join();
  EXPECT_NE(error, 0) << "nobody supplied anything";
  struct stat ignored {};
  EXPECT_EQ(::fstatat(open_directory, "f", &ignored, 0), -1);
  ::close(open_directory);
  EXPECT_TRUE(stdfs::is_empty(dir.path.string())) << "the directory below";
}

TEST(FuseMount, TakesOffTheMountOfAProcessThatWasKilled) {
  TempDir dir;
  {
    Mounted probe;
    SKIP_WITHOUT_FUSE(probe);
  }
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    Files files;
    std::mutex head;
    const auto mount = FuseMount::mount(files.fs, head, {.path = dir.path.string()}, {});
    write_all((dir.path / "f").string(), "f");
    static_cast<void>(::write(ready[1], mount ? "y" : "n", 1));
    ::pause();
    ::_exit(0);
  }
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  struct stat ignored {};
  EXPECT_EQ(::stat(dir.path.string().c_str(), &ignored), -1);
  Files files;
  std::mutex head;
  const auto mount = FuseMount::mount(files.fs, head, {.path = dir.path.string()}, {});
  ASSERT_TRUE(mount) << mount.error();
  EXPECT_EQ(::stat(dir.path.string().c_str(), &ignored), 0);
}

}  // namespace
}  // namespace zz::execution::statefs::testing
