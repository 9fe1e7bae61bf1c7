// The durable log against what disks and power cuts do: what was promised comes back, or the log says that it does not.

#include "agreement/durable_log.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "agreement/boot_record.hpp"
#include "agreement/record_codec.hpp"
#include "agreement/wal_tail.hpp"
#include "base/prng.hpp"

namespace zz::agreement {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

using Group = std::vector<LogRecord>;

// ---- files

// In memory where that is possible: these tests write thousands of directories.
class Directory {
 public:
  Directory() {
    std::string name = fs::exists("/dev/shm") ? "/dev/shm/zz-log-XXXXXX" : "/tmp/zz-log-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~Directory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  ASSERT_TRUE(file.good()) << path;
}

// What a machine that loses its power, or a process that is killed, leaves of a log that is in use.
void copy(const std::string& from, const std::string& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive);
}

std::vector<fs::path> files_in(const std::string& directory, const std::string& extension = "") {
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file() && (extension.empty() || entry.path().extension() == extension))
      out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// The write-ahead log that is written to.
fs::path wal_of(const std::string& data) { return files_in(data + "/log", ".log").back(); }

// What of it was written; zeros follow.
std::string wal_bytes(const std::string& data) {
  std::string bytes = read(wal_of(data));
  bytes.resize(bytes.find_last_not_of('\0') + 1);
  return bytes;
}
std::size_t wal_size(const std::string& data) { return wal_bytes(data).size(); }

// ---- records

RequestPtr request(Prng& prng, std::uint64_t number, std::size_t bytes) {
  auto out = std::make_shared<Request>();
  out->client = ClientId{2};
  out->session = SessionId{7};
  out->number = RequestNumber{number};
  Bytes op(bytes);
  for (std::uint8_t& byte : op) byte = static_cast<std::uint8_t>(prng.below(256));
  out->op = SharedBytes(std::move(op));
  out->digest = request_digest(ServiceId{}, out->client, out->session, out->number, 0, out->op.view());
  return out;
}

OrderedRecord batch(Prng& prng, Seq n, std::size_t requests, std::size_t bytes) {
  auto header = std::make_shared<BatchHeader>();
  header->n = n;
  header->time = Micros{static_cast<std::int64_t>(1'000'000 + n.value)};
  OrderedRecord out{n, {}, nullptr, {}};
  for (std::size_t i = 0; i < requests; ++i) {
    out.requests.push_back(request(prng, 1 + n.value * 16 + i, bytes));
    header->references.push_back(reference_of(*out.requests.back()));
  }
  out.digest = batch_digest(*header);
  out.header = std::move(header);
  return out;
}

AcceptedRecord accepted(const OrderedRecord& batch, View view) {
  return {view, batch.n, batch.digest, batch.header, batch.requests};
}

CertificatePtr certificate(Seq n) {
  auto out = std::make_shared<StableCertificate>();
  out->state.n = n;
  for (std::uint16_t i = 0; i < 3; ++i) out->parts.push_back({NodeId{i}, {}});
  return out;
}

ViewRecord changing(View view, CertificatePtr stable) {
  auto sent = std::make_shared<ViewChange>();
  sent->view = view;
  sent->stable = std::move(stable);
  sent->prepared.push_back({stable_n(sent->stable).next(), Digest{{1}}, View{}});
  return {view, true, std::move(sent), nullptr};
}

// What a node writes in a quiet life: batches accepted, prepared and ordered, now and then a view change and a
// checkpoint.
std::vector<Group> life(std::uint64_t seed, std::size_t batches, std::size_t bytes_max) {
  Prng prng(seed);
  std::vector<Group> out;
  View view;
  CertificatePtr stable;
  for (std::uint64_t n = 1; n <= batches; ++n) {
    const OrderedRecord ordered = batch(prng, Seq{n}, prng.below(4), 1 + prng.below(bytes_max));
    AcceptedRecord first = accepted(ordered, view);
    if (prng.below(3) == 0 && !first.bodies.empty()) first.bodies[0] = nullptr;  // it comes later
    out.push_back({first});
    if (prng.below(8) == 0) {
      view = view.next();
      out.push_back({changing(view, stable)});
      out.push_back({ViewRecord{view, false, nullptr, nullptr}, accepted(batch(prng, Seq{n}, 1, 10), view)});
      out.push_back({accepted(ordered, view)});
    }
    out.push_back({PreparedRecord{view, Seq{n}, ordered.digest}});
    if (prng.below(2) == 0) {
      out.push_back({ordered});
    } else {
      out.back().emplace_back(ordered);
    }
    if (n % 8 == 0) {
      stable = certificate(Seq{n - 2});
      out.push_back({StableRecord{stable}});
    }
  }
  return out;
}

// ---- what comes back

std::string text(const Recovered& recovered) {
  std::string out;
  const auto put = [&out](const LogRecord& record) { out += encode_record(ServiceId{}, record).text(); };
  put(recovered.view);
  for (const auto& stable : recovered.certificates) put(StableRecord{stable});
  for (const auto& record : recovered.ordered) put(record);
  for (const auto& record : recovered.accepted) put(record);
  for (const auto& record : recovered.prepared) put(record);
  return out;
}

std::string expected(const std::vector<Group>& groups, std::size_t count) {
  LogImage image;
  for (std::size_t i = 0; i < count; ++i) {
    for (const LogRecord& record : groups[i]) image.apply(record);
  }
  return text(image.recovered());
}

// texts[k]: what the first k groups amount to.
std::vector<std::string> all_prefixes(const std::vector<Group>& groups) {
  std::vector<std::string> out;
  LogImage image;
  out.push_back(text(image.recovered()));
  for (const Group& group : groups) {
    for (const LogRecord& record : group) image.apply(record);
    out.push_back(text(image.recovered()));
  }
  return out;
}

class DurableLogTest : public ::testing::Test {
 protected:
  static DurableLogOptions options(const std::string& path, std::uint16_t node = 0) {
    DurableLogOptions out;
    out.path = path;
    out.cluster.bytes[0] = 42;
    out.node = NodeId{node};
    return out;
  }
  static DurableLog::Opened open(const std::string& path, std::uint16_t node = 0) {
    auto opened = DurableLog::open(options(path, node));
    EXPECT_TRUE(opened.ok()) << opened.error();
    return opened ? std::move(opened).value() : DurableLog::Opened{};
  }
  static std::string error_of(const DurableLogOptions& given) {
    const auto opened = DurableLog::open(given);
    return opened ? "" : opened.error();
  }
  static void write(DurableLog& log, const Group& group) {
    for (const LogRecord& record : group) log.add(ServiceId{}, record);
    const auto done = log.commit();
    ASSERT_TRUE(done.ok()) << done.error();
  }
  static void expect_learner(const DurableLog::Opened& opened, const std::string& why) {
    ASSERT_EQ(opened.services.size(), 1u);
    EXPECT_TRUE(opened.services[0].learner) << why;
    EXPECT_TRUE(opened.services[0].ordered.empty());
    EXPECT_THAT(opened.damage, HasSubstr(why));
  }
  // Replaces the write-ahead log's descriptor in this process by one that fails in its own way.
  static void break_wal(const std::string& data, int broken) {
    const std::string path = fs::canonical(wal_of(data)).string();
    bool found = false;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      std::error_code error;
      if (fs::read_symlink(entry.path(), error).string() != path) continue;
      ASSERT_GE(::dup2(broken, std::stoi(entry.path().filename().string())), 0);
      found = true;
    }
    ASSERT_TRUE(found) << "the fault could not be injected";
    ::close(broken);
  }

  Directory directory_;
  std::string data_ = directory_ / "node-0";
  std::string crash_ = directory_ / "crash";
};

TEST_F(DurableLogTest, GivesBackWhatWasCommittedOverManyStarts) {
  const std::vector<Group> groups = life(1, 60, 300);
  std::size_t done = 0;
  while (done < groups.size()) {
    const auto opened = open(data_);
    EXPECT_EQ(opened.damage, "");
    ASSERT_EQ(opened.services.size(), 1u);
    EXPECT_FALSE(opened.services[0].learner);
    ASSERT_EQ(text(opened.services[0]), expected(groups, done));
    for (int i = 0; i < 20 && done < groups.size(); ++i) write(*opened.log, groups[done++]);
  }
  EXPECT_EQ(text(open(data_).services[0]), expected(groups, done));
}

TEST_F(DurableLogTest, KeepsServicesApart) {
  DurableLogOptions two = options(data_);
  two.services = 2;
  Prng prng(1);
  const OrderedRecord zero = batch(prng, Seq{1}, 1, 10);
  {
    auto opened = DurableLog::open(two);
    ASSERT_TRUE(opened.ok()) << opened.error();
    opened->log->add(ServiceId{0}, zero);
    opened->log->add(ServiceId{1}, ViewRecord{View{5}, false, nullptr, nullptr});
    ASSERT_TRUE(opened->log->commit().ok());
  }
  {
    const auto opened = DurableLog::open(two);
    ASSERT_TRUE(opened.ok()) << opened.error();
    EXPECT_EQ(opened->services[0].ordered.size(), 1u);
    EXPECT_EQ(opened->services[0].view.view, View{0});
    EXPECT_EQ(opened->services[1].ordered.size(), 0u);
    EXPECT_EQ(opened->services[1].view.view, View{5});
  }
  EXPECT_THAT(error_of(options(data_)), HasSubstr("the log has a service 1 that cluster.toml does not name"));
}

TEST_F(DurableLogTest, WhatWasNotCommittedIsNotThere) {
  Prng prng(1);
  {
    const auto opened = open(data_);
    opened.log->add(ServiceId{}, batch(prng, Seq{1}, 1, 10));
  }
  EXPECT_TRUE(open(data_).services[0].ordered.empty());
}

TEST_F(DurableLogTest, ABatchIsWrittenOnce) {
  Prng prng(1);
  const auto opened = open(data_);
  const OrderedRecord big = batch(prng, Seq{1}, 4, 50'000);
  write(*opened.log, {accepted(big, View{0})});
  write(*opened.log, {PreparedRecord{View{0}, Seq{1}, big.digest}, big});
  write(*opened.log, {accepted(big, View{1}), accepted(big, View{2})});
  EXPECT_LT(wal_size(data_), 210'000u);
}

TEST_F(DurableLogTest, AStableCheckpointDeletesPromisesAndBatchesThatLost) {
  Prng prng(1);
  const OrderedRecord won = batch(prng, Seq{1}, 1, 10);
  const OrderedRecord lost = batch(prng, Seq{1}, 1, 100'000);
  const OrderedRecord above = batch(prng, Seq{2}, 1, 10);
  {
    const auto opened = open(data_);
    write(*opened.log, {accepted(won, View{0}), accepted(lost, View{0}), accepted(above, View{0}),
                        PreparedRecord{View{0}, Seq{1}, won.digest}, PreparedRecord{View{0}, Seq{2}, above.digest}});
    write(*opened.log, {won, StableRecord{certificate(Seq{1})}});
  }
  const auto again = open(data_);
  ASSERT_EQ(again.services[0].ordered.size(), 1u);
  ASSERT_EQ(again.services[0].accepted.size(), 1u);
  EXPECT_EQ(again.services[0].accepted[0].digest, above.digest);
  EXPECT_EQ(again.services[0].prepared.size(), 1u);
  EXPECT_EQ(stable_n(again.services[0].stable), Seq{1});
}

TEST_F(DurableLogTest, OrderThatIsLearntBelowAStableCheckpointIsKept) {
  Prng prng(1);
  std::vector<Group> groups = {{StableRecord{certificate(Seq{3})}}};
  for (std::uint64_t n = 1; n <= 4; ++n) groups.push_back({batch(prng, Seq{n}, 2, 20)});
  {
    const auto opened = open(data_);
    for (const Group& group : groups) write(*opened.log, group);
  }
  for (int i = 0; i < 2; ++i) EXPECT_EQ(text(open(data_).services[0]), expected(groups, groups.size()));
}

TEST_F(DurableLogTest, AnAcceptedBatchWithoutItsHeaderComesBackWithoutIt) {
  Prng prng(1);
  const OrderedRecord batch_1 = batch(prng, Seq{1}, 1, 10);
  const AcceptedRecord bare{View{0}, Seq{1}, batch_1.digest, nullptr, {}};
  write(*open(data_).log, {bare});
  auto opened = open(data_);
  ASSERT_EQ(opened.services[0].accepted.size(), 1u);
  EXPECT_EQ(opened.services[0].accepted[0].header, nullptr);
  write(*opened.log, {accepted(batch_1, View{1})});
  opened.log.reset();
  opened = open(data_);
  ASSERT_EQ(opened.services[0].accepted.size(), 1u);
  ASSERT_NE(opened.services[0].accepted[0].header, nullptr);
  EXPECT_EQ(opened.services[0].accepted[0].view, View{1});
  EXPECT_NE(opened.services[0].accepted[0].bodies.at(0), nullptr);
}

// ---- crashes (ST-01, ST-02)

TEST_F(DurableLogTest, AcceptanceST01ACrashBetweenAnyTwoGroupsLosesNone) {
  const std::vector<Group> groups = life(2, 40, 200);
  const std::vector<std::string> prefix = all_prefixes(groups);
  const auto opened = open(data_);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    write(*opened.log, groups[i]);
    copy(data_, crash_);
    const auto again = open(crash_);
    ASSERT_EQ(again.damage, "") << "after group " << i;
    ASSERT_EQ(text(again.services[0]), prefix[i + 1]) << "after group " << i;
  }
}

TEST_F(DurableLogTest, AcceptanceST01ATailTornAtAnyByteLosesOnlyTheGroupsThatWereTorn) {
  const std::vector<Group> groups = life(3, 60, 60);
  const std::vector<std::string> prefix = all_prefixes(groups);
  std::vector<std::size_t> size_after;  // of the write-ahead log
  {
    const auto opened = open(data_);
    copy(data_, crash_);  // with its boot record: nothing promised yet
    size_after.push_back(wal_size(data_));
    for (const Group& group : groups) {
      write(*opened.log, group);
      size_after.push_back(wal_size(data_));
    }
    fs::copy_file(wal_of(data_), wal_of(crash_), fs::copy_options::overwrite_existing);
  }
  const std::string whole = wal_bytes(crash_);
  const std::string file = wal_of(crash_).filename();
  ASSERT_GT(whole.size(), 4'096u);
  const std::string torn = directory_ / "torn";
  for (std::size_t cut = 1; cut <= 4'096; ++cut) {
    const std::size_t size = whole.size() - cut;
    const auto groups_left =
        static_cast<std::size_t>(std::upper_bound(size_after.begin(), size_after.end(), size) - size_after.begin() - 1);
    // Reading the whole log is dear; what is cut off decides what it reads, and that is looked at for every byte.
    for (const std::size_t zeros : {0, 1'000}) {
      const std::string bytes = whole.substr(0, size) + std::string(zeros, '\0');
      const wal::Scan scan = wal::scan(as_bytes(bytes));
      ASSERT_EQ(scan.damage, "") << "torn " << cut << " bytes before its end, zeros " << zeros;
      ASSERT_EQ(scan.whole, size_after[groups_left]) << "torn " << cut << " bytes before its end, zeros " << zeros;
    }
    if (cut % 16 != 1 && size_after[groups_left] != size) continue;
    copy(crash_, torn);
    fs::resize_file(torn + "/log/" + file, size);
    const auto opened = open(torn);
    ASSERT_EQ(opened.damage, "") << "torn " << cut << " bytes before its end";
    ASSERT_EQ(text(opened.services[0]), prefix[groups_left]) << "torn " << cut << " bytes before its end";
  }
}

TEST_F(DurableLogTest, AcceptanceST02SectorsThatWereNeverWrittenAreNeverRead) {
  Prng prng(4);
  const OrderedRecord small = batch(prng, Seq{1}, 1, 10);
  const OrderedRecord big = batch(prng, Seq{2}, 8, 12'000);
  const std::vector<Group> groups = {{accepted(small, View{0})}, {small}, {accepted(big, View{0})}};
  const std::vector<std::string> prefix = all_prefixes(groups);
  std::size_t begin = 0;
  {
    const auto opened = open(data_);
    write(*opened.log, groups[0]);
    write(*opened.log, groups[1]);
    begin = wal_size(data_);
    write(*opened.log, groups[2]);
    copy(data_, crash_);
  }
  const fs::path wal = wal_of(crash_);
  const std::string whole = wal_bytes(crash_);
  const std::string torn = directory_ / "torn";
  std::size_t dropped = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    bool any = false;
    const std::size_t keep = prng.below(3);  // of four sectors
    for (std::size_t sector = begin / 512; sector * 512 < bytes.size(); ++sector) {
      if (prng.below(4) <= keep) continue;
      const std::size_t from = std::max(begin, sector * 512);
      const std::size_t to = std::min(bytes.size(), (sector + 1) * 512);
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(from), bytes.begin() + static_cast<std::ptrdiff_t>(to),
                '\0');
      any = true;
    }
    if (!any) continue;
    if (round % 2 == 0) bytes += std::string(100'000, '\0');
    copy(crash_, torn);
    zz::agreement::write(torn + "/log/" + wal.filename().string(), bytes);
    const auto opened = open(torn);
    if (opened.services[0].learner) continue;
    ASSERT_EQ(text(opened.services[0]), prefix[2]) << "round " << round;
    ++dropped;
  }
  EXPECT_GT(dropped, 250u) << "a torn write is not damage";
}

TEST_F(DurableLogTest, AcceptanceST02AHoleBeforeWholeGroupsIsDamage) {
  Prng prng(4);
  const auto opened = open(data_);
  const OrderedRecord first = batch(prng, Seq{1}, 1, 3'000);
  write(*opened.log, {accepted(first, View{0})});
  write(*opened.log, {PreparedRecord{View{0}, Seq{1}, first.digest}});
  copy(data_, crash_);
  std::string bytes = read(wal_of(crash_));
  std::fill(bytes.begin() + 1'024, bytes.begin() + 1'536, '\0');
  zz::agreement::write(wal_of(crash_), bytes);
  expect_learner(open(crash_), "with whole records after it");
}

// ---- damage (ST-05, ST-06, ST-07)

class Flips : public DurableLogTest {
 protected:
  // Flips one bit at a time, anywhere in the directory. What is read is what was written, or the log is not used.
  // ZZ_FLIPS=<n> asks for another number of rounds.
  void flip_everywhere(std::uint64_t seed, int rounds, const std::string& right) {
    if (const char* wanted = std::getenv("ZZ_FLIPS")) rounds = std::atoi(wanted);
    Prng prng(seed);
    const std::vector<fs::path> files = files_in(crash_);
    const std::string flipped = directory_ / "flipped";
    int noticed = 0;
    int harmless = 0;
    for (int round = 0; round < rounds; ++round) {
      const fs::path& file = files[prng.below(files.size())];
      std::string bytes = read(file);
      if (bytes.empty()) continue;
      const std::size_t at = prng.below(bytes.size());
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << prng.below(8)));
      copy(crash_, flipped);
      const std::string place = fs::relative(file, crash_).string();
      zz::agreement::write(flipped + "/" + place, bytes);
      const auto opened = DurableLog::open(options(flipped));
      if (!opened || opened->services[0].learner) {
        ++noticed;
        continue;
      }
      ++harmless;
      ASSERT_EQ(text(opened->services[0]), right) << "silent use: " << place << ", byte " << at << ", round " << round;
    }
    EXPECT_GT(noticed, rounds / 4);
    EXPECT_GT(harmless, 0) << "files that do not matter are in it";
  }
};

TEST_F(Flips, AcceptanceST05AFlippedBitIsNoticedInALogThatWasKilled) {
  const std::vector<Group> groups = life(5, 40, 400);
  const auto opened = open(data_);
  for (const Group& group : groups) write(*opened.log, group);
  copy(data_, crash_);
  flip_everywhere(6, 2'500, expected(groups, groups.size()));
}

TEST_F(Flips, AcceptanceST05AFlippedBitIsNoticedInALogThatWasRestarted) {
  const std::vector<Group> groups = life(7, 40, 400);
  for (std::size_t i = 0; i < groups.size();) {
    const auto opened = open(data_);
    for (int k = 0; k < 50 && i < groups.size(); ++k) write(*opened.log, groups[i++]);
  }
  { const auto idle = open(data_); }
  copy(data_, crash_);
  flip_everywhere(8, 2'500, expected(groups, groups.size()));
}

TEST_F(Flips, AcceptanceST05EveryBitOfTheLastPromiseCounts) {
  Prng prng(9);
  const OrderedRecord first = batch(prng, Seq{1}, 1, 10);
  const auto opened = open(data_);
  write(*opened.log, {accepted(first, View{0})});
  const std::size_t begin = wal_size(data_);
  write(*opened.log, {PreparedRecord{View{0}, Seq{1}, first.digest}});
  copy(data_, crash_);
  const std::string whole = wal_bytes(crash_);
  for (std::size_t bit = 8 * begin; bit < 8 * whole.size(); ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_NE(wal::scan(as_bytes(bytes)).damage, "") << "bit " << bit - 8 * begin << " of the last record";
    bytes += std::string(1'000, '\0');
    ASSERT_NE(wal::scan(as_bytes(bytes)).damage, "") << "bit " << bit - 8 * begin << ", zeros after it";
  }
  std::string bytes = whole;
  bytes[begin + 4] = static_cast<char>(bytes[begin + 4] ^ 0x40);  // its length: looks as if the file were cut off
  zz::agreement::write(wal_of(crash_), bytes);
  expect_learner(open(crash_), "damaged at byte");
}

TEST_F(DurableLogTest, AcceptanceST06TheLogOfAnotherNodeIsRefused) {
  Prng prng(1);
  write(*open(data_, 0).log, {batch(prng, Seq{1}, 1, 10)});
  write(*open(directory_ / "node-1", 1).log, {batch(prng, Seq{1}, 1, 10)});
  EXPECT_THAT(error_of(options(data_, 1)), HasSubstr("the boot record in it is of node 0"));
  fs::rename(data_ + "/log", directory_ / "kept");
  fs::rename(directory_ / "node-1/log", data_ + "/log");
  EXPECT_THAT(error_of(options(data_, 0)), HasSubstr("the log in it is of node 1"));
  fs::remove_all(data_ + "/log");
  fs::rename(directory_ / "kept", data_ + "/log");
  EXPECT_EQ(open(data_, 0).services[0].ordered.size(), 1u) << "nothing was moved or changed";
  DurableLogOptions other = options(data_);
  other.cluster.bytes[0] = 43;
  EXPECT_THAT(error_of(other), HasSubstr("of cluster 2a"));
}

TEST_F(DurableLogTest, AcceptanceST06AFileOfAnotherNodeIsNeverUsed) {
  const std::string other = directory_ / "node-1";
  const auto groups = life(10, 20, 100);
  for (int i = 0; i < 2; ++i) {  // twice, so that there are tables too
    const auto mine = open(data_, 0);
    const auto its = open(other, 1);
    for (std::size_t k = 0; k < 30; ++k) {
      write(*mine.log, groups[static_cast<std::size_t>(i) * 20 + k % 20]);
      write(*its.log, groups[static_cast<std::size_t>(i) * 20 + k % 20]);
    }
  }
  const auto last = open(data_, 0);
  copy(data_, crash_);
  const std::string right = text(last.services[0]);
  int swapped = 0;
  const std::string trial = directory_ / "trial";
  for (const fs::path& file : files_in(other + "/log")) {
    const std::string name = file.filename();
    if (!fs::exists(crash_ + "/log/" + name) || name == "IDENTITY" || name == "LOCK" || name == "CURRENT") continue;
    copy(crash_, trial);
    fs::copy_file(file, trial + "/log/" + name, fs::copy_options::overwrite_existing);
    const auto opened = DurableLog::open(options(trial, 0));
    ++swapped;
    if (opened && !opened->services[0].learner) {
      EXPECT_EQ(text(opened->services[0]), right) << name;
    }
  }
  EXPECT_GT(swapped, 0) << "the fault could not be injected";
}

TEST_F(DurableLogTest, AcceptanceST07AnOlderCopyOfTheLogIsRecognised) {
  Prng prng(1);
  write(*open(data_).log, {batch(prng, Seq{1}, 1, 10)});
  copy(data_, crash_);
  write(*open(data_).log, {batch(prng, Seq{2}, 1, 10)});
  fs::remove_all(data_ + "/log");
  fs::copy(crash_ + "/log", data_ + "/log", fs::copy_options::recursive);
  expect_learner(open(data_), "the log is of boot 1, but boot 2 has been");
  EXPECT_TRUE(fs::exists(data_ + "/log.damaged-1/CURRENT")) << "it is kept";
}

TEST_F(DurableLogTest, AcceptanceST07AnOlderCopyOfTheSameBootIsRecognised) {
  {
    const auto opened = open(data_);
    copy(data_, crash_);
    for (std::uint64_t view = 1; view <= 1'100; ++view) {
      write(*opened.log, {ViewRecord{View{view}, false, nullptr, nullptr}});
    }
  }
  fs::remove_all(data_ + "/log");
  fs::copy(crash_ + "/log", data_ + "/log", fs::copy_options::recursive);
  expect_learner(open(data_), "the log holds 0 groups of promises, but 1100 were made");
}

TEST_F(DurableLogTest, AcceptanceST07AnOlderBootRecordIsRecognised) {
  { const auto first = open(data_); }
  fs::copy_file(data_ + "/boot", directory_ / "boot");
  { const auto second = open(data_); }
  write(*open(data_).log, {ViewRecord{View{1}, false, nullptr, nullptr}});
  fs::copy_file(directory_ / "boot", data_ + "/boot", fs::copy_options::overwrite_existing);
  expect_learner(open(data_), "the boot record is of boot 1, but the log of boot 3");
}

TEST_F(DurableLogTest, AnotherLifeOfTheSameBootIsRecognised) {
  { const auto first = open(data_); }
  copy(data_, crash_);
  write(*open(data_).log, {ViewRecord{View{1}, false, nullptr, nullptr}});
  write(*open(crash_).log, {ViewRecord{View{2}, false, nullptr, nullptr}});
  fs::remove_all(data_ + "/log");
  fs::copy(crash_ + "/log", data_ + "/log", fs::copy_options::recursive);
  expect_learner(open(data_), "different lives");
}

TEST_F(DurableLogTest, ALogOrBootRecordThatIsGoneMakesALearner) {
  write(*open(data_).log, {ViewRecord{View{1}, false, nullptr, nullptr}});
  copy(data_, crash_);
  fs::remove_all(crash_ + "/log");
  expect_learner(open(crash_), "the log is gone");
  copy(data_, crash_);
  fs::remove(crash_ + "/boot");
  expect_learner(open(crash_), "the boot record is gone");
  copy(data_, crash_);
  fs::remove(crash_ + "/log/CURRENT");
  expect_learner(open(crash_), "log.damaged-1");
  copy(data_, crash_);
  fs::remove(files_in(crash_ + "/log", ".log").back());
  expect_learner(open(crash_), "log.damaged-1");
}

TEST_F(DurableLogTest, ALearnerStaysOneOverRestartsUntilItIsTold) {
  DurableLogOptions two = options(data_);
  two.services = 2;
  { ASSERT_TRUE(DurableLog::open(two).ok()); }
  fs::remove_all(data_ + "/log");
  {
    auto opened = DurableLog::open(two);
    ASSERT_TRUE(opened.ok());
    EXPECT_TRUE(opened->services[0].learner && opened->services[1].learner);
    opened->log->add(ServiceId{0}, LearnerRecord{false});
    ASSERT_TRUE(opened->log->commit().ok());
  }
  const auto again = DurableLog::open(two);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->damage, "");
  EXPECT_FALSE(again->services[0].learner);
  EXPECT_TRUE(again->services[1].learner);
}

TEST_F(DurableLogTest, AFirstStartThatWasCutShortIsAFirstStart) {
  { const auto opened = open(data_); }
  fs::remove(data_ + "/boot");
  EXPECT_FALSE(open(data_).services[0].learner) << "the log was made, its boot record was not";
  const std::string fresh = directory_ / "fresh";
  fs::create_directories(fresh + "/log");
  zz::agreement::write(fresh + "/log/MANIFEST-000001", "half");
  EXPECT_FALSE(open(fresh).services[0].learner);
}

TEST_F(DurableLogTest, AStartThatWasCutShortBetweenLogAndBootRecordIsForgiven) {
  write(*open(data_).log, {ViewRecord{View{1}, false, nullptr, nullptr}});
  for (int i = 0; i < 3; ++i) {
    fs::copy_file(data_ + "/boot", directory_ / "boot", fs::copy_options::overwrite_existing);
    { const auto cut_short = open(data_); }
    fs::copy_file(directory_ / "boot", data_ + "/boot", fs::copy_options::overwrite_existing);
    const auto opened = open(data_);
    EXPECT_EQ(opened.damage, "");
    EXPECT_EQ(opened.services[0].view.view, View{1});
  }
}

// ---- disks that say no (ST-04, ST-08)

class BrokenDisk : public DurableLogTest {
 protected:
  // Commits until one fails; says that it stays so, and that what was committed comes back.
  void fails_for_good(const std::function<void()>& breakage, const std::function<void()>& repair,
                      const std::string& cause) {
    const std::vector<Group> groups = life(11, 30, 2'000);
    std::string error;
    std::size_t done = 0;
    {
      const auto opened = open(data_);
      while (done < 20) write(*opened.log, groups[done++]);
      breakage();
      for (; error.empty() && done < groups.size(); ++done) {
        for (const LogRecord& record : groups[done]) opened.log->add(ServiceId{}, record);
        const auto committed = opened.log->commit();
        if (!committed) error = committed.error();
      }
      --done;  // the one that failed
      repair();
      opened.log->add(ServiceId{}, ViewRecord{View{99}, false, nullptr, nullptr});
      const auto later = opened.log->commit();
      ASSERT_FALSE(later.ok()) << "a failed log writes nothing more";
      EXPECT_EQ(later.error(), error);
    }
    EXPECT_THAT(error, HasSubstr(data_ + ": cannot write the log"));
    EXPECT_THAT(error, HasSubstr(cause));
    const auto again = open(data_);
    EXPECT_EQ(again.damage, "");
    const std::string found = text(again.services[0]);
    EXPECT_TRUE(found == expected(groups, done) || found == expected(groups, done + 1)) << "all that was committed";
    write(*again.log, {ViewRecord{View{99}, false, nullptr, nullptr}});
  }
};

TEST_F(BrokenDisk, AcceptanceST08NoSpaceIsAnErrorForGood) {
  fails_for_good([&] { break_wal(data_, ::open("/dev/full", O_WRONLY | O_CLOEXEC)); }, [] {}, "free some space");
}

TEST_F(BrokenDisk, AcceptanceST08AFileThatMayNotGrowIsAnErrorForGood) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  fails_for_good(
      [&] {
        const rlimit small{wal_size(data_) + 1'000, before.rlim_max};
        ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
      },
      [&] { ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0); }, "File too large");
}

TEST_F(BrokenDisk, AcceptanceST04AWriteErrorIsForGood) {
  fails_for_good([&] { break_wal(data_, ::open("/proc/self/mem", O_RDWR | O_CLOEXEC)); }, [] {}, "Input/output error");
}

TEST_F(BrokenDisk, AcceptanceST04ASyncThatFailsOnceIsForGood) {
  // It takes what is written, and cannot be synced.
  fails_for_good([&] { break_wal(data_, ::open("/dev/null", O_WRONLY | O_CLOEXEC)); }, [] {}, "Invalid argument");
}

TEST_F(DurableLogTest, ALogInUseIsNotOpenedTwice) {
  const auto opened = open(data_);
  EXPECT_THAT(error_of(options(data_)), HasSubstr("in use by another process"));
}

TEST_F(DurableLogTest, ADirectoryThatCannotBeMadeIsNamed) {
  zz::agreement::write(directory_ / "file", "");
  EXPECT_THAT(error_of(options(directory_ / "file/data")), HasSubstr("file/data: cannot make directory"));
}

TEST_F(DurableLogTest, WithoutSyncAKilledNodeLosesNothing) {
  const std::vector<Group> groups = life(12, 20, 100);
  DurableLogOptions lazy = options(data_);
  lazy.sync = false;
  const auto opened = DurableLog::open(lazy);
  ASSERT_TRUE(opened.ok());
  for (const Group& group : groups) write(*opened->log, group);
  copy(data_, crash_);
  EXPECT_EQ(text(open(crash_).services[0]), expected(groups, groups.size()));
}

}  // namespace
}  // namespace zz::agreement
