#include "agreement/evidence_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/execution/temp_dir.hpp"

namespace zz::agreement {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class EvidenceOnDisk : public ::testing::Test {
 protected:
  static Evidence sample(std::uint64_t n = 7) {
    Evidence out;
    out.n = Seq{n};
    out.requests = 3;
    out.differing = 1;
    out.request = std::make_shared<const Request>(
        Request{ClientId{4}, SessionId{9}, RequestNumber{2}, 0, SharedBytes::copy("op 2"), {}});
    out.reference = reference_of(*out.request);
    const std::string same(200, 'x');
    out.sides.push_back({{{SlotId{0}, Incarnation{1}}, {SlotId{2}, Incarnation{3}}},
                         {},
                         true,
                         SharedBytes::copy(same + "right, and so on")});
    out.sides.push_back({{{SlotId{1}, Incarnation{1}}}, {}, false, SharedBytes::copy(same + "rigged")});
    return out;
  }

  execution::testing::TempDir home_;
  std::string directory_ = home_.path.string() + "/evidence";
  EvidenceFiles files_{directory_};
};

TEST_F(EvidenceOnDisk, NamesTheFirstByteThatDiffersAndShowsWhatIsAroundIt) {
  const auto path = files_.write("kv", sample());
  ASSERT_TRUE(path) << path.error();
  EXPECT_EQ(*path, directory_ + "/kv-000000000007.json");
  const json told = json::parse(std::ifstream(*path));
  EXPECT_EQ(told["first_difference"], 203);
  EXPECT_EQ(told["request"]["number"], 2);
  EXPECT_EQ(told["request"]["op"], to_hex(as_bytes("op 2")));
  EXPECT_EQ(told["replies"][0]["slots"], (json{0, 2}));
  EXPECT_EQ(told["replies"][0]["bytes"], 216);
  EXPECT_EQ(told["replies"][1]["excerpt_from"], 203 - 64);
  EXPECT_THAT(told["replies"][1]["excerpt"].get<std::string>(), HasSubstr(to_hex(as_bytes("xxxrigged"))));
}

TEST_F(EvidenceOnDisk, WithoutBothBodiesTheDigestsAreThere) {
  Evidence evidence = sample();
  evidence.sides[1].body.reset();
  evidence.request.reset();
  const auto path = files_.write("kv", evidence);
  ASSERT_TRUE(path) << path.error();
  const json told = json::parse(std::ifstream(*path));
  EXPECT_FALSE(told.contains("first_difference"));
  EXPECT_FALSE(told["replies"][1].contains("bytes"));
  EXPECT_EQ(told["replies"][1]["digest"].get<std::string>().size(), 64u);
}

TEST_F(EvidenceOnDisk, OfOneReplyThatIsTheOthersBeginningTheEndDiffers) {
  Evidence evidence = sample();
  evidence.sides[0].body = SharedBytes::copy("abc");
  evidence.sides[1].body = SharedBytes::copy("abcd");
  const auto path = files_.write("kv", evidence);
  ASSERT_TRUE(path) << path.error();
  EXPECT_EQ(json::parse(std::ifstream(*path))["first_difference"], 3);
}

TEST_F(EvidenceOnDisk, OfStatesTheWayToTheFirstObjectThatDiffersAndItsBytesAreKept) {
  StateDifference difference;
  difference.n = Seq{128};
  difference.path = {{0, 0}, {0xab00'0000'0000'0000, 2}};
  difference.first = execution::state::ObjectId{0xab12'0000'0000'0000};
  const std::string same(100, 'x');
  difference.sides.push_back({{{SlotId{0}, Incarnation{1}}}, {}, true, false, SharedBytes::copy(same + "right")});
  difference.sides.push_back({{{SlotId{1}, Incarnation{4}}}, {}, false, false, SharedBytes::copy(same + "rigged")});
  const auto path = files_.write("kv", "kv", difference);
  ASSERT_TRUE(path) << path.error();
  EXPECT_EQ(*path, directory_ + "/kv-000000000128-state.json");
  const json told = json::parse(std::ifstream(*path));
  EXPECT_EQ(told["checkpoint"], 128);
  EXPECT_EQ(told["object"], 0xab12'0000'0000'0000);
  EXPECT_EQ(told["path"], (json{"", "ab"}));
  EXPECT_EQ(told["first_difference"], 103);
  EXPECT_EQ(told["roots"][1]["incarnations"], json::array({4}));
  EXPECT_THAT(told["roots"][1]["excerpt"].get<std::string>(), HasSubstr(to_hex(as_bytes("xxrigged"))));
}

TEST_F(EvidenceOnDisk, IsBoundedAndTheOldestGoesFirst) {
  namespace fs = std::filesystem;
  for (std::uint64_t n = 1; n <= EvidenceFiles::kFilesMax; ++n) {
    const auto path = files_.write("kv", sample(n));
    ASSERT_TRUE(path) << path.error();
    fs::last_write_time(*path, fs::file_time_type(std::chrono::seconds(n)));
  }
  const auto newest = files_.write("kv", sample(999));
  ASSERT_TRUE(newest) << newest.error();
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}),
            static_cast<std::ptrdiff_t>(EvidenceFiles::kFilesMax));
  EXPECT_FALSE(fs::exists(directory_ + "/kv-000000000001.json"));
  EXPECT_TRUE(fs::exists(directory_ + "/kv-000000000002.json"));
  EXPECT_TRUE(fs::exists(*newest));
}

TEST_F(EvidenceOnDisk, AFullOrMissingPlaceIsNamed) {
  std::ofstream(home_.path.string() + "/file") << "no directory";
  EvidenceFiles files(home_.path.string() + "/file/evidence");
  const auto path = files.write("kv", sample());
  ASSERT_FALSE(path);
  EXPECT_THAT(path.error(), HasSubstr(home_.path.string() + "/file/evidence: cannot make it"));
}

}  // namespace
}  // namespace zz::agreement
