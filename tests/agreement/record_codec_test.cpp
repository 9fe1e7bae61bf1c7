#include "agreement/record_codec.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/agreement/random_messages.hpp"

namespace zz::agreement {
namespace {

using testing::equal;
using testing::kRecordKinds;
using testing::random_record;
using testing::RandomShape;
using testing::record_name;

const CodecLimits kLimits;
const ServiceId kService{5};

TEST(RecordCodec, GivesBackEveryRecordItWrote) {
  Prng prng(1);
  for (std::size_t kind = 0; kind < kRecordKinds; ++kind) {
    for (int round = 0; round < 500; ++round) {
      const LogRecord record = random_record(prng, kind, kService, {});
      const SharedBytes bytes = encode_record(kService, record);
      const DecodedRecord decoded = decode_record(bytes, kLimits);
      ASSERT_EQ(decoded.refusal, Refusal::kNone) << record_name(kind) << " round " << round;
      ASSERT_EQ(decoded.service, kService);
      ASSERT_TRUE(equal(record, decoded.record)) << record_name(kind) << " round " << round;
      ASSERT_EQ(encode_record(kService, decoded.record), bytes) << record_name(kind) << " round " << round;
    }
  }
}

// The recorded segments are the fuzzer's seeds too. A difference means that a node cannot read the log that another
// build wrote. ZZ_REWRITE=1 records them anew.
TEST(RecordCodec, WritesTheSameBytesAsEver) {
  const std::filesystem::path corpus = std::filesystem::path(ZZ_SOURCE_DIR) / "tests/fuzz/corpus/record";
  for (std::size_t kind = 0; kind < kRecordKinds; ++kind) {
    Prng prng(kind + 3);
    const SharedBytes bytes = encode_record(kService, random_record(prng, kind, kService, RandomShape{3, 10}));
    const std::string segment(bytes.slice(8, bytes.size() - 8).text());
    if (std::getenv("ZZ_REWRITE") != nullptr) {
      std::filesystem::create_directories(corpus);
      std::ofstream(corpus / record_name(kind), std::ios::binary) << segment;
    }
    std::ifstream file(corpus / record_name(kind), std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), segment) << record_name(kind);
  }
}

RequestPtr a_request(std::uint64_t number, std::string_view op) {
  auto made = std::make_shared<Request>();
  made->number.value = number;
  made->op = SharedBytes::copy(op);
  made->digest = request_digest(kService, made->client, made->session, made->number, 0, made->op.view());
  return made;
}

// Of three requests, the second is not at hand and the third is empty.
AcceptedRecord an_accepted() {
  AcceptedRecord out;
  out.view.value = 2;
  out.n.value = 9;
  const std::vector<RequestPtr> requests = {a_request(1, "put a b"), a_request(2, "get a"), a_request(3, "")};
  auto header = std::make_shared<BatchHeader>();
  header->service = kService;
  header->n = out.n;
  for (const RequestPtr& r : requests) header->references.push_back(reference_of(*r));
  out.digest = batch_digest(*header);
  out.header = std::move(header);
  out.bodies = {requests[0], nullptr, requests[2]};
  return out;
}

TEST(RecordCodec, KeepsAMissingBodyApartFromAnEmptyOne) {
  const DecodedRecord decoded = decode_record(encode_record(kService, an_accepted()), kLimits);
  ASSERT_EQ(decoded.refusal, Refusal::kNone);
  const auto& got = std::get<AcceptedRecord>(decoded.record);
  ASSERT_EQ(got.bodies.size(), 3u);
  ASSERT_TRUE(got.bodies[0] && got.bodies[2]);
  EXPECT_EQ(got.bodies[1], nullptr);
  EXPECT_EQ(got.bodies[0]->op.text(), "put a b");
  EXPECT_EQ(got.bodies[0]->digest, got.header->references[0].digest);
  EXPECT_TRUE(got.bodies[2]->op.empty());
}

TEST(RecordCodec, ComputesDigestsInsteadOfBelievingThem) {
  AcceptedRecord accepted = an_accepted();
  OrderedRecord ordered{accepted.n, {}, accepted.header, {a_request(1, "x"), a_request(2, "y"), a_request(3, "z")}};
  ordered.digest.bytes[0] = 0xee;  // a lie that has no place in the record
  const DecodedRecord decoded = decode_record(encode_record(kService, ordered), kLimits);
  ASSERT_EQ(decoded.refusal, Refusal::kNone);
  EXPECT_EQ(std::get<OrderedRecord>(decoded.record).digest, accepted.digest);

  accepted.digest.bytes[0] ^= 1;
  EXPECT_EQ(decode_record(encode_record(kService, accepted), kLimits).refusal, Refusal::kMalformed);
}

// The frame of an_accepted(), as words to bend: the root struct lies at 2, 3 (the table is word 0), the record's
// pointers to ballot, header and bodies follow.
struct Bent {
  static constexpr std::size_t kRoot = 2;
  static constexpr std::size_t kBallot = 4;
  static constexpr std::size_t kHeader = 5;

  std::vector<std::uint64_t> words;

  Bent() {
    const SharedBytes bytes = encode_record(kService, an_accepted());
    words.resize(bytes.size() / 8);
    std::memcpy(words.data(), bytes.data(), bytes.size());
  }
  // The first word of body i: index and flags. Bodies are found by the tag of their list: two structs of 1 + 1 words.
  std::uint64_t& body(std::size_t i) {
    const std::uint64_t tag = std::uint64_t{2} << 2 | std::uint64_t{1} << 32 | std::uint64_t{1} << 48;
    const auto found = std::find(words.begin(), words.end(), tag);
    ZZ_ASSERT(found != words.end());
    return words[static_cast<std::size_t>(found - words.begin()) + 1 + 2 * i];
  }
  [[nodiscard]] Refusal refusal() const {
    const auto* data = reinterpret_cast<const std::uint8_t*>(words.data());
    return decode_record(SharedBytes::copy(ByteView(data, words.size() * 8)), kLimits).refusal;
  }
};

TEST(RecordCodec, RefusesBodiesThatNoReferenceNames) {
  ASSERT_EQ(Bent().refusal(), Refusal::kNone);
  ASSERT_EQ(Bent().body(0), 0u);
  ASSERT_EQ(Bent().body(1), 2u);
  const auto with = [](std::uint64_t first, std::uint64_t second) {
    Bent bent;
    bent.body(0) = first;
    bent.body(1) = second;
    return bent.refusal();
  };
  EXPECT_EQ(with(1, 2), Refusal::kNone);
  EXPECT_EQ(with(0, 3), Refusal::kMalformed) << "beyond the references";
  EXPECT_EQ(with(0, 0xffffffff), Refusal::kMalformed) << "far beyond the references";
  EXPECT_EQ(with(1, 1), Refusal::kMalformed) << "twice";
  EXPECT_EQ(with(2, 0), Refusal::kMalformed) << "out of order";
  EXPECT_EQ(with(0, 2 | std::uint64_t{1} << 32), Refusal::kMalformed) << "a flag nobody defined";
}

TEST(RecordCodec, RefusesBodiesWithoutAHeaderAndAVoteWithoutABallot) {
  Bent headless;
  headless.words[Bent::kHeader] = 0;
  EXPECT_EQ(headless.refusal(), Refusal::kMalformed);
  Bent voteless;
  voteless.words[Bent::kBallot] = 0;
  EXPECT_EQ(voteless.refusal(), Refusal::kMalformed);
}

TEST(RecordCodec, RefusesRecordsOfNoKindOrNoContent) {
  for (std::uint64_t tag = 0; tag < kRecordKinds + 3; ++tag) {
    Bent bent;
    bent.words.resize(4);
    bent.words[0] = std::uint64_t{3} << 32;
    bent.words[Bent::kRoot] = kService.value | tag << 16;
    bent.words[Bent::kRoot + 1] = 0;
    const bool has_content = LogRecord(LearnerRecord{}).index() != tag;
    EXPECT_EQ(bent.refusal(), has_content ? Refusal::kMalformed : Refusal::kNone) << "tag " << tag;
  }
  EXPECT_EQ(decode_record(SharedBytes(), kLimits).refusal, Refusal::kMalformed);
}

TEST(RecordCodec, RefusesMoreThanTheLimits) {
  CodecLimits tight;
  tight.op_bytes_max = 6;
  EXPECT_EQ(decode_record(encode_record(kService, an_accepted()), tight).refusal, Refusal::kOversize);
  tight = {};
  tight.batch_requests_max = 2;
  EXPECT_EQ(decode_record(encode_record(kService, an_accepted()), tight).refusal, Refusal::kOversize);
  ViewChange change;
  change.service = kService;
  change.prepared.resize(kClaimsMax + 1);
  const ViewRecord view{View{1}, true, std::make_shared<const ViewChange>(change), nullptr};
  EXPECT_EQ(decode_record(encode_record(kService, view), kLimits).refusal, Refusal::kOversize);
}

TEST(RecordCodec, RefusesEveryTruncation) {
  Prng prng(2);
  for (std::size_t kind = 0; kind < kRecordKinds; ++kind) {
    const SharedBytes whole = encode_record(kService, random_record(prng, kind, kService, RandomShape{5, 12}));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const SharedBytes part = SharedBytes::copy(whole.view().first(size));
      ASSERT_EQ(decode_record(part, kLimits).refusal, Refusal::kMalformed) << record_name(kind) << " cut to " << size;
    }
  }
}

TEST(RecordCodec, SurvivesFlippedBits) {
  Prng prng(3);
  std::size_t refused = 0;
  for (std::size_t kind = 0; kind < kRecordKinds; ++kind) {
    for (int round = 0; round < 500; ++round) {
      const SharedBytes whole = encode_record(kService, random_record(prng, kind, kService, RandomShape{4, 12}));
      Bytes bent(whole.data(), whole.data() + whole.size());
      for (std::uint64_t flips = 1 + prng.below(4); flips > 0; --flips) {
        bent[8 + prng.below(bent.size() - 8)] ^= static_cast<std::uint8_t>(1u << prng.below(8));
      }
      const DecodedRecord decoded = decode_record(SharedBytes(std::move(bent)), kLimits);
      if (decoded.refusal != Refusal::kNone) {
        ++refused;
      } else {
        encode_record(decoded.service, decoded.record);  // what was accepted can be said again
      }
    }
  }
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace zz::agreement
