#include "agreement/wal_file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "base/prng.hpp"

namespace zz::agreement {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// On a disk, where there is one: a file system in memory knows no direct writes.
class WalFile : public testing::Test {
 protected:
  WalFile() {
    std::string name = fs::temp_directory_path() / "zz-wal-XXXXXX";
    directory_ = ::mkdtemp(name.data()) != nullptr ? name : "";
  }
  ~WalFile() override { fs::remove_all(directory_); }

  std::unique_ptr<rocksdb::FSWritableFile> create(const std::string& path) {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    const auto status = wal_environment()->GetFileSystem()->NewWritableFile(path, {}, &file, nullptr);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return file;
  }
  [[nodiscard]] bool direct() const {
    const int fd = ::open((directory_ + "/probe").c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (fd >= 0) ::close(fd);
    return fd >= 0;
  }
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string directory_;
};

TEST_F(WalFile, HoldsWhatWasAppendedAndZeros) {
  const std::string path = directory_ + "/000007.log";
  auto file = create(path);
  ASSERT_NE(file, nullptr);
  Prng prng(1);
  std::string model;
  for (int i = 0; i < 300; ++i) {
    constexpr std::uint64_t kSizes[] = {1, 10, 5'000, 70'000};
    std::string piece(i == 100 ? 2'500'000 : prng.below(kSizes[prng.below(4)] + 1), static_cast<char>(1 + i % 255));
    ASSERT_TRUE(file->Append(piece, {}, nullptr).ok());
    model += piece;
    ASSERT_EQ(file->GetFileSize({}, nullptr), model.size());
    ASSERT_TRUE(i % 10 != 0 || file->Sync({}, nullptr).ok());
    if (i % 20 != 0) continue;
    const std::string found = read(path);
    ASSERT_EQ(found.compare(0, model.size(), model), 0) << "after append " << i;
    ASSERT_EQ(found.find_first_not_of('\0', model.size()), std::string::npos) << "after append " << i;
    EXPECT_TRUE(i < 100 || !direct() || found.size() > model.size()) << "it did not grow ahead";
  }
  ASSERT_TRUE(file->Close({}, nullptr).ok());
  EXPECT_EQ(read(path), model);
}

TEST_F(WalFile, OneThatMayNotGrowSaysSoAndKeepsWhatItHas) {
  const std::string path = directory_ + "/000008.log";
  auto file = create(path);
  ASSERT_TRUE(file->Append(std::string(5'000, 'a'), {}, nullptr).ok());
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{200'000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  rocksdb::IOStatus status;
  std::size_t fitted = 5'000;
  while (status.ok()) {
    status = file->Append(std::string(10'000, 'b'), {}, nullptr);
    if (status.ok()) fitted += 10'000;
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(status.ToString(), HasSubstr(path));
  EXPECT_GE(fitted, 185'000u) << "zeros took the room of what was written";
  const std::string found = read(path);
  EXPECT_EQ(found.substr(0, fitted), std::string(5'000, 'a') + std::string(fitted - 5'000, 'b'));
}

TEST_F(WalFile, OtherFilesAreRocksDbsOwn) {
  auto file = create(directory_ + "/000009.sst");
  ASSERT_TRUE(file->Append("abc", {}, nullptr).ok());
  ASSERT_TRUE(file->Flush({}, nullptr).ok());
  ASSERT_TRUE(file->Close({}, nullptr).ok());
  EXPECT_EQ(read(directory_ + "/000009.sst"), "abc");
}

}  // namespace
}  // namespace zz::agreement
