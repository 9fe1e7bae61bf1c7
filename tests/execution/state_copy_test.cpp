#include "execution/state_copy.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "base/prng.hpp"
#include "tests/execution/state/store_test_model.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution::testing {
namespace {

namespace fs = std::filesystem;
using statefs::FileSystem;
using statefs::kRootInode;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{30};
const StateCopy::Mapped kNoneMapped = std::set<ino_t>{};

void write_file(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A directory, its state, and what copies the one into the other.
struct Copied {
  explicit Copied(StateCopy::OnMissing on_missing = {}) {
    EXPECT_TRUE(files.format({::geteuid(), ::getegid()}, 0700).ok());
    copy.emplace(files, *store, head, dir.path.string(), std::move(on_missing));
  }
  std::string save(const StateCopy::Mapped& mapped = kNoneMapped) {
    const Result<void> saved = copy->save(Micros{++time * 1'000'000}, mapped);
    return saved.ok() ? "" : saved.error();
  }
  std::string restore() {
    const Result<void> restored = copy->restore();
    return restored.ok() ? "" : restored.error();
  }
  // The state of `from`, whole.
  void adopt(Copied& from) {
    const state::Snapshot of = state::testing::take(*from.store);
    static_cast<void>(state::testing::digest_of(*from.store, of));
    store->adopt(*state::ObjectStore::root(of));
    for (auto lacks = store->missing({}, 1'000, 1 << 20); !lacks.wants.empty();
         lacks = store->missing({}, 1'000, 1 << 20)) {
      for (const state::Want& want : lacks.wants) {
        const auto part = from.store->part(of, want);
        ASSERT_TRUE(part);
        static_cast<void>(store->supply(*part));
      }
    }
    files.replaced();
    time = from.time;
  }
  Digest root() { return state::testing::root_of(*store); }
  std::string stored(const std::string& name) {
    const auto found = files.lookup(kRootInode, name);
    if (!found.ok()) return "no such file";
    std::string out;
    for (const SharedBytes& piece : files.read(found.attributes.inode, 0, 1 << 30).pieces) out += piece.text();
    return out;
  }

  TempDir dir;
  std::unique_ptr<state::ObjectStore> store = state::testing::in_memory();
  FileSystem files{*store};
  std::mutex head;
  std::optional<StateCopy> copy;
  std::int64_t time = 0;
};

// All that a copy keeps, by name. Files of several names: the first of them.
std::map<std::string, std::string> tree(const fs::path& of) {
  std::map<std::string, std::string> out;
  std::map<ino_t, std::string> first;
  std::set<fs::path> paths{of};
  for (const auto& entry : fs::recursive_directory_iterator(of)) paths.insert(entry.path());
  for (const fs::path& path : paths) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    const std::string name = path.lexically_relative(of);
    std::string& text = out[name];
    text = std::to_string(status.st_mode) + " " + std::to_string(status.st_uid) + ":" + std::to_string(status.st_gid);
    if (S_ISLNK(status.st_mode)) text += " -> " + fs::read_symlink(path).string();
    if (!S_ISREG(status.st_mode)) continue;
    const auto [is, is_first] = first.try_emplace(status.st_ino, name);
    text += " is " + is->second + " " + std::to_string(status.st_size);
    if (is_first && status.st_size < (1 << 22)) text += " " + read_file(path);
  }
  return out;
}

TEST(StateCopy, KeepsNamesBytesPermissionsLinksHolesAndEmptyDirectories) {
  Copied a;
  const fs::path at = a.dir.path;
  fs::create_directories(at / "empty");
  fs::create_directories(at / "locked/deep");
  write_file(at / "locked/deep/f", std::string(100'000, 'f'));
  write_file(at / "none", "");
  write_file(at / "small", "small");
  fs::create_hard_link(at / "small", at / "a-name-before");
  fs::create_hard_link(at / "small", at / "locked/another");
  fs::create_symlink("../nowhere", at / "locked/link");
  fs::create_directory_symlink("empty", at / "to-directory");
  write_file(at / "sparse", "begin");
  ASSERT_EQ(::truncate((at / "sparse").c_str(), std::int64_t{1} << 33), 0);
  const int sparse = ::open((at / "sparse").c_str(), O_WRONLY);
  ASSERT_EQ(::pwrite(sparse, "middle", 6, (std::int64_t{1} << 32) + 7), 6);
  ::close(sparse);
  fs::permissions(at / "small", fs::perms{04751});
  fs::permissions(at / "locked/deep", fs::perms{0555});
  fs::permissions(at / "empty", fs::perms{01777});
  const auto before = tree(at);
  ASSERT_EQ(before.size(), 12u);

  const auto begin = Clock::now();
  ASSERT_EQ(a.save(), "");
  EXPECT_LT(Clock::now() - begin, kPatience / 2) << "8 GiB of holes are not read";
  EXPECT_LT(a.store->totals().bytes, 300'000u);
  const Digest root = a.root();

  Copied b;
  write_file(b.dir.path / "left-over", "from before");
  fs::create_directories(b.dir.path / "old/older");
  fs::permissions(b.dir.path / "old", fs::perms{0});
  b.adopt(a);
  ASSERT_EQ(b.restore(), "");
  EXPECT_EQ(tree(b.dir.path), before);
  struct stat status {};
  ASSERT_EQ(::stat((b.dir.path / "sparse").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks, 1'000);
  EXPECT_EQ(status.st_mtim.tv_sec, 1) << "the agreed time of the checkpoint";
  std::ifstream file(b.dir.path / "sparse");
  file.seekg((std::int64_t{1} << 32) + 7);
  std::string word;
  word.resize(6);
  file.read(word.data(), 6);
  EXPECT_EQ(word, "middle");

  ASSERT_EQ(b.save(), "");
  EXPECT_EQ(b.copy->counters().changes, 0u);
  EXPECT_EQ(b.root(), root);
  fs::permissions(b.dir.path / "locked/deep", fs::perms{0755});  // to be removed
  fs::permissions(at / "locked/deep", fs::perms{0755});
}

TEST(StateCopy, WhatDidNotChangeIsNotWrittenAndSoonNotRead) {
  Copied a;
  for (int i = 0; i < 50; ++i) write_file(a.dir.path / std::to_string(i), std::string(30'000, 'x'));
  ASSERT_EQ(a.save(), "");
  const std::uint64_t changes = a.copy->counters().changes;
  EXPECT_EQ(a.copy->counters().read, 50u);
  // As long as a later change might show the same times, bytes are compared.
  const auto deadline = Clock::now() + kPatience;
  for (std::uint64_t read = 0; read != a.copy->counters().read && Clock::now() < deadline;) {
    read = a.copy->counters().read;
    ASSERT_EQ(a.save(), "");
  }
  const CopyCounters before = a.copy->counters();
  ASSERT_EQ(a.save(), "");
  EXPECT_EQ(a.copy->counters().read, before.read);
  EXPECT_EQ(a.copy->counters().entries, before.entries + 50);
  EXPECT_EQ(a.copy->counters().changes, changes);
  const Digest root = a.root();

  write_file(a.dir.path / "7", std::string(30'000, 'x'));
  ASSERT_EQ(a.save(), "");
  EXPECT_EQ(a.copy->counters().read, before.read + 1);
  EXPECT_EQ(a.copy->counters().changes, changes) << "written anew with the same bytes";
  EXPECT_EQ(a.root(), root);
  std::fstream(a.dir.path / "8") << "y";
  ASSERT_EQ(a.save(), "");
  EXPECT_EQ(a.copy->counters().changes, changes + 1) << "one block of one file";
  EXPECT_EQ(a.stored("8"), "y" + std::string(29'999, 'x'));

  ASSERT_EQ(a.save(std::nullopt), "") << "nobody knows what is mapped";
  EXPECT_GE(a.copy->counters().read, before.read + 52);
}

// Some kernels give two changes within a tick the same time, so that is not told from what is seen here.
TEST(StateCopy, WhatWasChangedJustBeforeIsReadAgain) {
  Copied a;
  const fs::path path = a.dir.path / "f";
  write_file(path, "before");
  ASSERT_EQ(a.save(), "");
  int again = 0;  // not each time: the machine may be slow
  for (int i = 0; i < 200; ++i) {
    // As quickly as can be, of the same length, in place.
    const std::string bytes = std::to_string(100'000 + i);
    const int file = ::open(path.c_str(), O_WRONLY);
    ASSERT_EQ(::pwrite(file, bytes.data(), bytes.size(), 0), 6);
    ::close(file);
    ASSERT_EQ(a.save(), "");
    ASSERT_EQ(a.stored("f"), bytes);
    const std::uint64_t read = a.copy->counters().read;
    ASSERT_EQ(a.save(), "");
    again += a.copy->counters().read > read ? 1 : 0;
  }
  EXPECT_GT(again, 0);
}

TEST(StateCopy, HardLinksThatComeGoAndMoveAreWhatTheDirectoryHas) {
  Copied a;
  const fs::path at = a.dir.path;
  fs::create_directory(at / "d");
  int step = 0;
  const auto is_kept = [&] {
    SCOPED_TRACE(++step);
    ASSERT_EQ(a.save(), "");
    Copied b;
    b.adopt(a);
    ASSERT_EQ(b.restore(), "");
    ASSERT_EQ(tree(b.dir.path), tree(at));
    ASSERT_EQ(b.save(), "");
    ASSERT_EQ(b.copy->counters().changes, 0u);
  };
  write_file(at / "d/m", "first");
  fs::create_hard_link(at / "d/m", at / "x");
  is_kept();
  fs::create_hard_link(at / "x", at / "a");  // before the name that made it
  is_kept();
  fs::remove(at / "d/m");
  write_file(at / "d/m", "of its own");
  is_kept();
  fs::remove(at / "a");
  fs::create_hard_link(at / "d/m", at / "a");
  is_kept();
  fs::remove(at / "x");
  fs::rename(at / "d/m", at / "d/n");
  is_kept();
  fs::remove(at / "a");
  write_file(at / "a", "of its own");  // what was linked is two files
  is_kept();
}

// What a service might do, the same to all directories; `noise`: besides, what must leave no trace.
void change(const fs::path& at, Prng prng, Prng* noise) {
  const std::array<std::string, 4> directories = {"", "d1", "d2", "d1/e"};
  const auto any = [&] { return at / directories[prng.below(4)] / ("n" + std::to_string(prng.below(6))); };
  const auto is_file = [](const fs::path& path) { return fs::is_regular_file(fs::symlink_status(path)); };
  std::error_code ignored;
  for (int i = 0; i < 12; ++i) {
    const fs::path path = any();
    const fs::path other = any();
    const std::uint64_t size = prng.below(3) == 0 ? prng.below(100'000) : prng.below(2'000);
    const auto letter = static_cast<char>('a' + prng.below(4));
    const std::uint64_t what = prng.below(10);
    if (noise != nullptr) {
      const fs::path extra = at / ("noise" + std::to_string(noise->below(3)));
      write_file(extra, "takes an inode number");
      if (noise->below(2) == 0 && is_file(path)) fs::last_write_time(path, fs::file_time_type::clock::now());
      fs::remove(extra);
    }
    fs::create_directories(path.parent_path(), ignored);
    if (what < 3 && (is_file(path) || !fs::exists(fs::symlink_status(path))))
      write_file(path, std::string(size, letter));
    if (what == 3 && is_file(path)) std::ofstream(path, std::ios::app) << std::string(size / 10, letter);
    if (what == 4) fs::remove_all(path, ignored);
    if (what == 5 && fs::exists(fs::symlink_status(path))) fs::rename(path, other, ignored);
    if (what == 6 && is_file(path)) fs::create_hard_link(path, other, ignored);
    if (what == 7) fs::create_symlink(std::string(1, letter), path, ignored);
    if (what == 8) fs::create_directories(path / "e", ignored);
    if (what == 9 && is_file(path)) fs::resize_file(path, size * 3, ignored);
  }
}

TEST(StateCopy, EqualDirectoriesGiveEqualStatesOverEqualStatesAndAWokenOneGoesOnWithThem) {
  const char* const text = std::getenv("ZZ_STATE_COPY_SEEDS");
  const int seeds = text != nullptr ? std::atoi(text) : 10;
  for (int seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(static_cast<std::uint64_t>(seed));
    Prng noise(static_cast<std::uint64_t>(seed) + 1'000);
    Copied a;
    Copied b;
    std::optional<Copied> woken;
    for (int checkpoint = 0; checkpoint < 12; ++checkpoint) {
      const Prng changes(prng.next());
      change(a.dir.path, changes, nullptr);
      change(b.dir.path, changes, &noise);
      if (woken) change(woken->dir.path, changes, &noise);
      ASSERT_EQ(a.save(), "");
      ASSERT_EQ(b.save(checkpoint % 3 == 0 ? StateCopy::Mapped{} : kNoneMapped), "");
      ASSERT_EQ(a.root(), b.root()) << checkpoint;
      const auto is = tree(a.dir.path);
      ASSERT_EQ(is, tree(b.dir.path));
      if (woken) {
        ASSERT_EQ(is, tree(woken->dir.path));
        ASSERT_EQ(woken->save(), "");
        ASSERT_EQ(a.root(), woken->root()) << checkpoint;
      }
      if (checkpoint % 4 != 2) continue;
      woken.emplace();
      woken->adopt(a);
      ASSERT_EQ(woken->restore(), "");
      ASSERT_EQ(is, tree(woken->dir.path));
    }
  }
}

TEST(StateCopy, WhatItCannotHoldIsNamed) {
  Copied a;
  fs::create_directory(a.dir.path / "d");
  const std::string path = (a.dir.path / "d/it").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(a.save(), "the state cannot be copied: " + path + " is a pipe");
  fs::remove(path);

  const int listening = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{AF_UNIX, {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(a.save(), "the state cannot be copied: " + path + " is a socket");
  ::close(listening);
  fs::remove(path);

  if (::mknod(path.c_str(), S_IFCHR | 0600, 0) == 0) {  // of root alone
    EXPECT_EQ(a.save(), "the state cannot be copied: " + path + " is a device");
    fs::remove(path);
  }
  fs::path deep = a.dir.path;
  for (int i = 0; i < 140; ++i) deep /= "d";
  fs::create_directories(deep);
  EXPECT_THAT(a.save(), EndsWith("d is nested too deeply"));
  fs::remove_all(a.dir.path / "d");
  EXPECT_EQ(a.save(), "");
}

TEST(StateCopy, AStateThatIsFullIsAnErrorThatNamesTheFile) {
  Copied a;
  FileSystem small(*a.store, {.objects_max = 1ull << 24, .bytes_max = 50'000});
  StateCopy copy(small, *a.store, a.head, a.dir.path.string(), {});
  write_file(a.dir.path / "large", std::string(100'000, 'l'));
  const Result<void> saved = copy.save(Micros{1}, kNoneMapped);
  ASSERT_FALSE(saved.ok());
  EXPECT_THAT(saved.error(), HasSubstr("cannot take " + (a.dir.path / "large").string() + ": No space left"));
}

TEST(StateCopy, ARestoreAsksForManyPartsAtATimeAndChangesNothingBeforeAllAreHere) {
  Copied from;
  for (int i = 0; i < 400; ++i) write_file(from.dir.path / ("f" + std::to_string(i)), std::string(5'000, 'f'));
  ASSERT_EQ(from.save(), "");
  const state::Snapshot of = state::testing::take(*from.store);
  static_cast<void>(state::testing::digest_of(*from.store, of));

  std::mutex asked_mutex;
  std::vector<state::Want> asked;
  Copied to([&](const std::vector<state::Want>& wants) {
    const std::lock_guard lock(asked_mutex);
    asked.insert(asked.end(), wants.begin(), wants.end());
  });
  write_file(to.dir.path / "old", "old");
  const auto old = tree(to.dir.path);
  to.store->adopt(*state::ObjectStore::root(of));
  to.files.replaced();
  std::string outcome = "not ended";
  int rounds = 0;
  for (const bool is_stopped : {true, false}) {
    std::atomic<bool> ended{false};
    std::thread restoring([&] {
      outcome = to.restore();
      ended = true;
    });
    const auto deadline = Clock::now() + kPatience;
    while (!ended && Clock::now() < deadline) {
      std::vector<state::Want> wants;
      {
        const std::lock_guard lock(asked_mutex);
        wants.swap(asked);
      }
      if (wants.empty()) {
        std::this_thread::yield();
        continue;
      }
      EXPECT_EQ(tree(to.dir.path), old);
      if (is_stopped && rounds > 0) {
        to.copy->stop();
        continue;
      }
      ++rounds;
      {
        const std::lock_guard lock(to.head);
        for (const state::Want& want : wants) static_cast<void>(to.store->supply(*from.store->part(of, want)));
      }
      to.copy->supplied();
    }
    if (!ended) to.copy->stop();
    restoring.join();
    EXPECT_EQ(outcome, is_stopped ? "stopped" : "");
    to.copy->go_on();
  }
  EXPECT_EQ(tree(to.dir.path), tree(from.dir.path));
  EXPECT_LE(rounds, 12) << "of 800 parts";
}

// What a checkpoint and a restore cost: ZZ_STATE_COPY_FILES files of 10 kB in directories of 100.
TEST(StateCopy, CostsByTheNumberOfFiles) {
  const char* const text = std::getenv("ZZ_STATE_COPY_FILES");
  if (text == nullptr) GTEST_SKIP() << "a measurement: set ZZ_STATE_COPY_FILES";
  const int files = std::atoi(text);
  Copied a;
  const auto path = [&](int i) { return a.dir.path / std::to_string(i / 100) / ("file-" + std::to_string(i)); };
  for (int i = 0; i < files; ++i) {
    if (i % 100 == 0) fs::create_directory(path(i).parent_path());
    write_file(path(i), std::string(10'000, static_cast<char>('a' + i % 26)));
  }
  const auto timed = [](const char* what, const auto& run) {
    const auto begin = Clock::now();
    EXPECT_EQ(run(), "");
    std::printf("%s: %.1f ms\n", what, std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  };
  timed("the first checkpoint", [&] { return a.save(); });
  timed("the second, bytes that were new are read again", [&] { return a.save(); });
  for (int i = 0; i < 5; ++i) timed("nothing changed", [&] { return a.save(); });
  for (int i = 0; i < files; i += 100) write_file(path(i), "changed");
  timed("one file of 100 changed", [&] { return a.save(); });
  Copied b;
  b.adopt(a);
  timed("a restore of what is here", [&] { return b.restore(); });
  timed("its first checkpoint", [&] { return b.save(); });
  EXPECT_EQ(a.root(), b.root());
}

TEST(StateCopy, NothingIsWrittenIntoAStateThatReplacedItsOwn) {
  Copied a;
  write_file(a.dir.path / "f", "one");
  ASSERT_EQ(a.save(), "");
  const state::Snapshot agreed = state::testing::take(*a.store);
  const Digest root = state::testing::digest_of(*a.store, agreed);
  write_file(a.dir.path / "f", "two");
  a.store->revert(agreed);
  std::string outcome;
  std::thread saving([&] { outcome = a.save(); });
  a.copy->stop();
  saving.join();
  EXPECT_EQ(outcome, "stopped");
  EXPECT_EQ(a.root(), root);
}

}  // namespace
}  // namespace zz::execution::testing
