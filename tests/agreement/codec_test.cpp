#include "agreement/codec.hpp"

#include <gtest/gtest.h>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/agreement/heap_meter.hpp"
#include "tests/agreement/random_messages.hpp"

namespace zz::agreement {
namespace {

using testing::equal;
using testing::kind_name;
using testing::kKinds;
using testing::random_message;
using testing::RandomShape;

const CodecLimits kLimits;

// ZZ_ROUNDS=n makes the property tests n times as long.
std::size_t rounds(std::size_t usual) {
  const char* factor = std::getenv("ZZ_ROUNDS");
  return usual * (factor != nullptr ? std::strtoul(factor, nullptr, 10) : 1);
}

double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// Words of a hostile segment, laid out by hand.
struct Raw {
  std::vector<std::uint64_t> words;

  // Pointers of the encoding, see capnproto.org/encoding.html.
  static std::uint64_t structure(std::int32_t offset, std::uint16_t data, std::uint16_t pointers) {
    return static_cast<std::uint32_t>(offset) << 2 | std::uint64_t{data} << 32 | std::uint64_t{pointers} << 48;
  }
  static std::uint64_t list(std::int32_t offset, std::uint64_t element, std::uint64_t count) {
    return (static_cast<std::uint32_t>(offset) << 2 | 1u) | element << 32 | count << 35;
  }
  static std::uint64_t far(std::uint32_t offset, bool pad_of_two, std::uint32_t segment) {
    return (offset << 3 | (pad_of_two ? 4u : 0u) | 2u) | std::uint64_t{segment} << 32;
  }
  // A root struct with union member `tag`, whose pointer is the next word (index 2 of the segment).
  static Raw message(std::uint16_t tag) { return Raw{{structure(0, 1, 1), std::uint64_t{tag} << 16}}; }
  Raw& add(std::uint64_t word) {
    words.push_back(word);
    return *this;
  }
  [[nodiscard]] SharedBytes frame(std::uint32_t segments = 1) const {
    auto all = std::make_shared<std::vector<std::uint64_t>>();
    all->push_back(std::uint64_t{segments - 1} | std::uint64_t{words.size()} << 32);
    all->insert(all->end(), words.begin(), words.end());
    const auto* data = reinterpret_cast<const std::uint8_t*>(all->data());
    return SharedBytes(all, ByteView(data, all->size() * 8));
  }
};

constexpr std::uint16_t kPrePrepareTag = 0;
constexpr std::uint16_t kFetchBodiesTag = 3;
constexpr std::uint16_t kRequestsTag = 5;
constexpr std::uint16_t kOrdersTag = 9;
constexpr std::uint16_t kFetchHeadersTag = 21;
constexpr std::uint16_t kCheckpointTag = 23;
constexpr std::uint16_t kStableTag = 24;
constexpr std::uint16_t kOrderProofTag = 26;
constexpr std::uint16_t kViewChangeTag = 27;
constexpr std::uint16_t kNewViewTag = 28;
constexpr std::uint16_t kProgressTag = 29;

void expect_refused_cheaply(const SharedBytes& bytes, const char* what) {
  double best_ms = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::size_t heap_before = zz::testing::heap_bytes();
    const double start = cpu_ms();
    const Decoded decoded = decode(bytes, kLimits);
    best_ms = std::min(best_ms, cpu_ms() - start);
    EXPECT_NE(decoded.refusal, Refusal::kNone) << what;
    EXPECT_LE(zz::testing::heap_bytes() - heap_before, 2u << 20) << what;
  }
  EXPECT_LE(best_ms, 10.0) << what;
}

TEST(Codec, GivesBackEveryMessageItWrote) {
  Prng prng(1);
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    for (std::size_t round = 0; round < rounds(1'000); ++round) {
      const Message message = random_message(prng, kind, {});
      const SharedBytes bytes = encode(message);
      ASSERT_EQ(bytes.size() % 8, 0u);
      const Decoded decoded = decode(bytes, kLimits);
      ASSERT_EQ(decoded.refusal, Refusal::kNone) << kind_name(kind) << " round " << round;
      ASSERT_TRUE(equal(message, decoded.message)) << kind_name(kind) << " round " << round;
      ASSERT_EQ(encode(decoded.message), bytes) << kind_name(kind) << " round " << round;
    }
  }
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The recorded segments are the fuzzer's seeds too. A difference means that nodes of two builds do not understand each
// other: a new protocol version. ZZ_REWRITE=1 records them anew.
TEST(Codec, WritesTheSameBytesAsEver) {
  const std::filesystem::path corpus = std::filesystem::path(ZZ_SOURCE_DIR) / "tests/fuzz/corpus/codec";
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    Prng prng(kind + 1);
    const SharedBytes bytes = encode(random_message(prng, kind, RandomShape{3, 10}));
    const std::string segment(bytes.slice(8, bytes.size() - 8).text());
    if (std::getenv("ZZ_REWRITE") != nullptr) {
      std::filesystem::create_directories(corpus);
      std::ofstream(corpus / kind_name(kind), std::ios::binary) << segment;
    }
    EXPECT_EQ(read_file(corpus / kind_name(kind)), segment) << kind_name(kind);
  }
}

TEST(Codec, OneContentHasOneDigestHoweverItIsEncoded) {
  Prng prng(6);
  const std::size_t pre_prepare = Body(PrePrepare{}).index();
  const Message message = random_message(prng, pre_prepare, {});
  const SharedBytes usual = encode(message);
  Bytes padded(usual.data(), usual.data() + usual.size());
  padded.resize(padded.size() + 8, 0xab);  // a word that nothing points to
  for (std::size_t i = 0; i < 4; ++i) padded[4 + i] = static_cast<std::uint8_t>((padded.size() / 8 - 1) >> (8 * i));
  const Decoded decoded = decode(SharedBytes(std::move(padded)), kLimits);
  ASSERT_EQ(decoded.refusal, Refusal::kNone);
  EXPECT_TRUE(equal(decoded.message, message));  // the digest included
}

TEST(Codec, GivesBackTheLargestLists) {
  Prng prng(2);
  Message message{ServiceId{3}, Requests{}};
  auto& items = std::get<Requests>(message.body).items;
  items.resize(kLimits.batch_requests_max);
  for (std::size_t i = 0; i < items.size(); ++i) items[i].number.value = i + 1;
  EXPECT_TRUE(equal(decode(encode(message), kLimits).message, message));
  Orders orders;
  orders.digests.resize(kLimits.orders_max);
  for (auto& digest : orders.digests) digest.bytes[31] = static_cast<std::uint8_t>(prng.next());
  message.body = orders;
  EXPECT_TRUE(equal(decode(encode(message), kLimits).message, message));
}

std::vector<Digest> some_digests(std::size_t count) {
  std::vector<Digest> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i].bytes[i % 32] = static_cast<std::uint8_t>(i);
  return out;
}

CertificatePtr a_certificate(std::size_t parts) {
  auto made = std::make_shared<StableCertificate>();
  made->state.n.value = 128;
  made->parts.resize(parts);
  for (std::size_t i = 0; i < parts; ++i) made->parts[i].signer.value = static_cast<std::uint16_t>(i % 16);
  return made;
}

std::vector<Claim> some_claims(std::size_t count) {
  std::vector<Claim> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = {Seq{i}, {}, View{~i}};
  return out;
}

ViewChange a_view_change(std::size_t prepared, std::size_t pre_prepared) {
  ViewChange out;
  out.stable = a_certificate(16);
  out.prepared = some_claims(prepared);
  out.pre_prepared = some_claims(pre_prepared);
  out.complaints = a_certificate(16)->parts;
  return out;
}

NewView a_new_view(std::size_t proof, std::size_t chosen, const ViewChange& part) {
  NewView out;
  out.proof.assign(proof, std::make_shared<const ViewChange>(part));
  out.chosen = some_digests(chosen);
  return out;
}

TEST(Codec, GivesBackTheLargestNewView) {
  const auto largest = std::make_shared<const NewView>(a_new_view(16, 1'024, a_view_change(kClaimsMax, kClaimsMax)));
  const Message message{ServiceId{}, NewViewPtr(largest)};
  const SharedBytes bytes = encode(message);
  EXPECT_LT(bytes.size(), 2u << 20);
  const Decoded decoded = decode(bytes, kLimits);
  ASSERT_EQ(decoded.refusal, Refusal::kNone);
  EXPECT_TRUE(equal(decoded.message, message));
}

TEST(Codec, KeepsPayloadsAsSlicesOfTheFrame) {
  Requests requests;
  requests.items.push_back({RequestNumber{1}, 0, SharedBytes::copy(std::string_view("hello"))});
  SharedBytes op;
  {
    const SharedBytes bytes = encode({ServiceId{}, requests});
    const Decoded decoded = decode(bytes, kLimits);
    op = std::get<Requests>(decoded.message.body).items.at(0).op;
    EXPECT_GE(op.data(), bytes.data());
    EXPECT_LT(op.data(), bytes.data() + bytes.size());
  }
  EXPECT_EQ(op.text(), "hello");  // the slice keeps the frame alive
}

TEST(Codec, ComputesDigestsInsteadOfBelievingThem) {
  auto request = std::make_shared<Request>();
  request->client.value = 7;
  request->op = SharedBytes::copy(std::string_view("put a b"));
  request->digest.bytes[0] = 0xee;  // a lie that has no place on the wire
  const Decoded decoded = decode(encode({ServiceId{2}, Bodies{{request}}}), kLimits);
  ASSERT_EQ(decoded.refusal, Refusal::kNone);
  const Request& got = *std::get<Bodies>(decoded.message.body).requests.at(0);
  EXPECT_EQ(got.digest, request_digest(ServiceId{2}, ClientId{7}, {}, {}, 0, request->op.view()));
}

TEST(Codec, ABatchNamesItsRequestsByItsReferences) {
  auto request = std::make_shared<Request>();
  request->op = SharedBytes::copy(std::string_view("other"));
  auto header = std::make_shared<BatchHeader>();
  header->references.push_back({ClientId{1}, SessionId{2}, RequestNumber{3}, {}});
  const Decoded decoded = decode(encode({ServiceId{}, Batch{header, {}, {request}}}), kLimits);
  const auto& batch = std::get<Batch>(decoded.message.body);
  ASSERT_EQ(batch.requests.size(), 1u);
  EXPECT_EQ(batch.requests[0]->client, ClientId{1});
  EXPECT_EQ(batch.requests[0]->session, SessionId{2});
  EXPECT_EQ(batch.requests[0]->number, RequestNumber{3});
  EXPECT_NE(batch.requests[0]->digest, header->references[0].digest);  // a wrong body shows
}

TEST(Codec, RefusesEveryTruncation) {
  Prng prng(3);
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    const SharedBytes whole = encode(random_message(prng, kind, {}));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const SharedBytes part = SharedBytes::copy(whole.view().first(size));  // exact, so that tools see overruns
      ASSERT_EQ(decode(part, kLimits).refusal, Refusal::kMalformed) << kind_name(kind) << " cut to " << size;
    }
  }
}

TEST(Codec, SurvivesTruncationsThatClaimToBeWhole) {
  Prng prng(4);
  std::size_t refused = 0;
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    const SharedBytes whole = encode(random_message(prng, kind, {}));
    for (std::size_t words = 2; words < whole.size() / 8; ++words) {
      Bytes part(whole.data(), whole.data() + words * 8);
      const auto claimed = static_cast<std::uint32_t>(words - 1);
      for (std::size_t i = 0; i < 4; ++i) part[4 + i] = static_cast<std::uint8_t>(claimed >> (8 * i));
      if (decode(SharedBytes(std::move(part)), kLimits).refusal != Refusal::kNone) ++refused;
    }
  }
  EXPECT_GT(refused, 0u);
}

TEST(Codec, SurvivesFlippedBits) {
  Prng prng(5);
  std::size_t refused = 0;
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    for (std::size_t round = 0; round < rounds(300); ++round) {
      const SharedBytes whole = encode(random_message(prng, kind, RandomShape{4, 12}));
      Bytes bent(whole.data(), whole.data() + whole.size());
      for (std::uint64_t flips = 1 + prng.below(4); flips > 0; --flips) {
        bent[8 + prng.below(bent.size() - 8)] ^= static_cast<std::uint8_t>(1u << prng.below(8));
      }
      const Decoded decoded = decode(SharedBytes(std::move(bent)), kLimits);
      if (decoded.refusal != Refusal::kNone) {
        ++refused;
      } else {
        encode(decoded.message);  // what was accepted can be said again
      }
    }
  }
  EXPECT_GT(refused, 0u);
}

TEST(Codec, RefusesFramesThatAreNotOneSegment) {
  const Raw raw = Raw::message(1);
  expect_refused_cheaply(raw.frame(2), "2 segments");
  expect_refused_cheaply(raw.frame(512), "512 segments");
  expect_refused_cheaply(raw.frame(513), "513 segments");
  expect_refused_cheaply(raw.frame(0), "first word 0xffffffff");
  SharedBytes longer = Raw(raw).add(0).frame();
  Bytes trailing(longer.data(), longer.data() + longer.size());
  --trailing[4];
  expect_refused_cheaply(SharedBytes(std::move(trailing)), "bytes after the segment");
  expect_refused_cheaply(SharedBytes(), "nothing");
  expect_refused_cheaply(Raw{}.frame(), "an empty segment");
}

TEST(Codec, RefusesUnalignedBytes) {
  const SharedBytes whole = encode({ServiceId{}, Prepare{}});
  Bytes shifted(whole.size() + 1);
  std::memcpy(shifted.data() + 1, whole.data(), whole.size());
  const SharedBytes owner(std::move(shifted));
  EXPECT_EQ(decode(owner.slice(1, whole.size()), kLimits).refusal, Refusal::kMalformed);
}

TEST(Codec, RefusesPointersThatLeaveTheSegment) {
  expect_refused_cheaply(Raw{{Raw::far(100, false, 0), 0}}.frame(), "far root out of range");
  expect_refused_cheaply(Raw{{Raw::far(0, false, 7), 0}}.frame(), "far root into another segment");
  expect_refused_cheaply(Raw{{Raw::far(0, false, 0), 0}}.frame(), "far pointer to itself");
  expect_refused_cheaply(Raw{{Raw::far(1, true, 0), Raw::far(1, true, 0), 0}}.frame(), "double far pointer cycle");
  expect_refused_cheaply(Raw{{Raw::structure(1000, 1, 1)}}.frame(), "struct beyond the end");
  expect_refused_cheaply(Raw{{Raw::structure(-5, 1, 1), 0, 0}}.frame(), "struct before the start");
  expect_refused_cheaply(
      Raw::message(kOrdersTag).add(Raw::structure(0, 1, 1)).add(1).add(Raw::list(0, 2, 1u << 28)).frame(),
      "a blob of 256 MiB");
}

TEST(Codec, RefusesCyclesAndDeepNesting) {
  // The header pointer leads back to the root.
  expect_refused_cheaply(
      Raw::message(kPrePrepareTag).add(Raw::structure(0, 1, 1)).add(0).add(Raw::structure(-5, 2, 2)).frame(), "cycle");
  // A chain of 64 structs, each inside the one before.
  Raw deep = Raw::message(kPrePrepareTag);
  for (int i = 0; i < 64; ++i) deep.add(Raw::structure(0, 0, 2)).add(0);
  const Decoded decoded = decode(deep.frame(), kLimits);
  EXPECT_TRUE(decoded.refusal != Refusal::kNone ||
              std::get<PrePrepare>(decoded.message.body).header->references.empty());
}

// A message of kind FetchBodies or Requests whose list pointer and what follows are given.
Raw with_list(std::uint16_t tag, std::uint16_t data, std::uint64_t list) {
  Raw raw = Raw::message(tag);
  raw.add(Raw::structure(0, data, 1));
  for (std::uint16_t i = 0; i < data; ++i) raw.add(0);
  return raw.add(list);
}

TEST(Codec, RefusesListsOfNothingThatClaimToBeHuge) {
  expect_refused_cheaply(with_list(kFetchBodiesTag, 0, Raw::list(0, 0, (1u << 29) - 1)).frame(), "void list 2^29");
  // Composite: tag word with 2^29 elements of no size.
  const std::uint64_t tag = Raw::structure((1 << 29) - 1, 0, 0);
  expect_refused_cheaply(with_list(kFetchBodiesTag, 0, Raw::list(0, 7, 0)).add(tag).frame(), "structs of no size");
  expect_refused_cheaply(with_list(kRequestsTag, 1, Raw::list(0, 7, 0)).add(tag).frame(), "requests of no size");
  const std::uint64_t negative = Raw::structure(-1, 0, 0);
  expect_refused_cheaply(with_list(kRequestsTag, 1, Raw::list(0, 7, 0)).add(negative).frame(), "negative count");
}

TEST(Codec, RefusesAProofOfNothingThatClaimsToBeHuge) {
  const std::uint64_t tag = Raw::structure((1 << 29) - 1, 0, 0);
  Raw raw = Raw::message(kNewViewTag).add(Raw::structure(0, 3, 3)).add(0).add(1).add(0);
  raw.add(Raw::list(2, 7, 0)).add(0).add(Raw::list(1, 2, 64)).add(tag);
  for (int i = 0; i < 8; ++i) raw.add(0);
  expect_refused_cheaply(raw.frame(), "VIEW-CHANGEs of no size");
}

TEST(Codec, RefusesListsOfPointersInPlaceOfStructs) {
  Raw raw = with_list(kRequestsTag, 1, Raw::list(0, 6, 3));
  raw.add(Raw::list(5000, 2, 100)).add(Raw::structure(-3, 1, 1)).add(Raw::far(0, false, 0));
  expect_refused_cheaply(raw.frame(), "list of pointers");
}

TEST(Codec, RefusesManyItemsThatShareOnePayload) {
  // 1,000 requests whose bodies are the same 64 KiB: 64 MiB of work for 80 KiB of bytes.
  constexpr std::uint32_t kItems = 1'000;
  constexpr std::uint32_t kBlobWords = 8'192;
  Raw raw = with_list(kRequestsTag, 1, Raw::list(0, 7, kItems * 3));
  raw.add(Raw::structure(kItems, 2, 1));
  for (std::uint32_t i = 0; i < kItems; ++i) {
    raw.add(i).add(0).add(Raw::list(static_cast<std::int32_t>((kItems - i - 1) * 3), 2, kBlobWords * 8));
  }
  for (std::uint32_t i = 0; i < kBlobWords; ++i) raw.add(0);
  expect_refused_cheaply(raw.frame(), "shared payload");
}

TEST(Codec, RefusesUnknownKinds) {
  for (const std::uint16_t tag : {std::uint16_t{kKinds}, std::uint16_t{500}, std::uint16_t{0xffff}}) {
    expect_refused_cheaply(Raw::message(tag).add(0).frame(), "unknown union member");
  }
}

TEST(Codec, RefusesAMissingBody) {
  for (std::uint16_t tag = 0; tag < kKinds; ++tag) {
    const Refusal refusal = decode(Raw::message(tag).add(0).frame(), kLimits).refusal;
    const bool has_body = std::string_view(kind_name(tag)) != "StatusQuery";
    EXPECT_EQ(refusal, has_body ? Refusal::kMalformed : Refusal::kNone) << kind_name(tag);
  }
}

Refusal refusal_of(const Message& message, const CodecLimits& limits = kLimits) {
  return decode(encode(message), limits).refusal;
}

TEST(Codec, RefusesListsLongerThanTheirLimit) {
  CodecLimits tight;
  tight.batch_requests_max = 3;
  tight.orders_max = 3;
  const auto request = std::make_shared<const Request>();
  auto header = std::make_shared<BatchHeader>();
  header->references.resize(4);
  const std::vector<Message> messages = {
      {{}, PrePrepare{{}, header, {}}},
      {{}, FetchBodies{std::vector<Reference>(4)}},
      {{}, Bodies{std::vector<RequestPtr>(4, request)}},
      {{}, Requests{{}, std::vector<Requests::Item>(4)}},
      {{}, Acks{{}, std::vector<Acks::Item>(4)}},
      {{}, Orders{{}, std::vector<Digest>(4)}},
      {{}, Batch{header, {}, std::vector<RequestPtr>(4, request)}},
      {{}, Vote{{}, {}, {}, {}, std::vector<Digest>(4)}},
      {{}, Replies{{}, std::vector<Replies::Item>(4)}},
      {{}, FetchReplies{{}, std::vector<FetchReplies::Item>(4)}},
      {{}, ReplyDigests{{}, std::vector<ReplyDigests::Item>(4)}},
      {{}, Headers{{header}}},
      {{}, VouchQuery{std::vector<Reference>(4)}},
      {{}, Vouched{std::vector<Reference>(4)}},
  };
  for (const Message& message : messages) {
    EXPECT_EQ(refusal_of(message, tight), Refusal::kOversize) << kind_name(message.body.index());
    EXPECT_EQ(refusal_of(message), Refusal::kNone) << kind_name(message.body.index());
  }
}

// Lists whose limit is the protocol's: the longest that is taken, and one more.
TEST(Codec, RefusesListsLongerThanTheProtocolAllows) {
  const auto view_change = [](std::size_t prepared, std::size_t pre_prepared) {
    return Body(ViewChangePtr(std::make_shared<const ViewChange>(a_view_change(prepared, pre_prepared))));
  };
  const auto complaints = [](std::size_t parts) {
    ViewChange change = a_view_change(1, 1);
    change.complaints = a_certificate(parts)->parts;
    return Body(ViewChangePtr(std::make_shared<const ViewChange>(change)));
  };
  const auto new_view = [](std::size_t proof, std::size_t chosen, std::size_t claims) {
    return Body(NewViewPtr(std::make_shared<const NewView>(a_new_view(proof, chosen, a_view_change(claims, 0)))));
  };
  const auto headers = [](std::size_t count) { return Headers{{count, null_header(ServiceId{}, Seq{1})}}; };
  const auto fetch_state = [](std::size_t wants, std::size_t paths) {
    return FetchState{1, {}, {}, std::vector<StateWant>(wants), std::vector<StatePath>(paths)};
  };
  const auto state_parts = [](std::size_t parts, std::size_t bytes) {
    return StateParts{1, std::vector<StatePart>(parts, {2, 0, 16, SharedBytes(Bytes(bytes))})};
  };
  struct Case {
    const char* list;
    Body fits;
    Body too_long;
  };
  const Case cases[] = {
      {"wanted", FetchHeaders{some_digests(kClaimsMax)}, FetchHeaders{some_digests(kClaimsMax + 1)}},
      {"headers", headers(16), headers(17)},
      {"parts", Stable{a_certificate(16)}, Stable{a_certificate(17)}},
      {"parts of a proof", OrderProof{a_certificate(16), {}, {}}, OrderProof{a_certificate(17), {}, {}}},
      {"digests", OrderProof{a_certificate(3), {}, some_digests(kProofDigestsMax)},
       OrderProof{a_certificate(3), {}, some_digests(kProofDigestsMax + 1)}},
      {"closings", Closings{{}, some_digests(kClosingsMax)}, Closings{{}, some_digests(kClosingsMax + 1)}},
      {"wants", fetch_state(kStateWantsMax, 0), fetch_state(kStateWantsMax + 1, 0)},
      {"paths", fetch_state(0, kStateWantsMax), fetch_state(0, kStateWantsMax + 1)},
      {"wants and paths", fetch_state(kStateWantsMax - 1, 1), fetch_state(kStateWantsMax, 1)},
      {"state parts", state_parts(kStatePartsMax, 1), state_parts(kStatePartsMax + 1, 1)},
      {"bytes of a part", state_parts(1, kStatePartBytesMax), state_parts(1, kStatePartBytesMax + 1)},
      {"bytes of all parts", state_parts(17, kStatePartBytesMax), state_parts(18, kStatePartBytesMax)},
      {"P", view_change(kClaimsMax, 0), view_change(kClaimsMax + 1, 0)},
      {"Q", view_change(0, kClaimsMax), view_change(0, kClaimsMax + 1)},
      {"complaints", complaints(16), complaints(17)},
      {"proof", new_view(16, 0, 1), new_view(17, 0, 1)},
      {"chosen", new_view(3, 1'024, 1), new_view(3, 1'025, 1)},
      {"P inside a NEW-VIEW", new_view(3, 0, kClaimsMax), new_view(3, 0, kClaimsMax + 1)},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(refusal_of({{}, c.fits}), Refusal::kNone) << c.list;
    EXPECT_EQ(refusal_of({{}, c.too_long}), Refusal::kOversize) << c.list;
  }
}

constexpr std::uint64_t kNothing = 0;  // a null pointer

std::uint64_t blob(std::uint32_t offset, std::uint32_t bytes) {
  return Raw::list(static_cast<std::int32_t>(offset), 2, bytes);
}

// A VIEW-CHANGE whose P and signature have that many bytes.
Raw raw_view_change(std::uint32_t prepared_bytes, std::uint32_t signature_bytes) {
  const std::uint32_t prepared_words = (prepared_bytes + 7) / 8;
  Raw raw = Raw::message(kViewChangeTag).add(Raw::structure(0, 2, 4)).add(0).add(1);
  raw.add(kNothing).add(blob(2, prepared_bytes)).add(kNothing).add(blob(prepared_words, signature_bytes));
  for (std::uint32_t i = 0; i < prepared_words + (signature_bytes + 7) / 8; ++i) raw.add(0);
  return raw;
}

TEST(Codec, RefusesBlobsThatAreNoWholeNumberOfEntries) {
  EXPECT_EQ(decode(raw_view_change(96, 64).frame(), kLimits).refusal, Refusal::kNone);
  expect_refused_cheaply(raw_view_change(95, 64).frame(), "a claim cut off");
  expect_refused_cheaply(raw_view_change(32, 64).frame(), "a digest in place of a claim");
  expect_refused_cheaply(raw_view_change(48, 63).frame(), "a signature of 63 bytes");
  expect_refused_cheaply(raw_view_change(48, 65).frame(), "a signature of 65 bytes");
  expect_refused_cheaply(raw_view_change(0, 0).frame(), "no signature");
  const auto wanted = [](std::uint32_t bytes) {
    return Raw::message(kFetchHeadersTag).add(Raw::structure(0, 0, 1)).add(blob(0, bytes)).add(0).add(0).add(0).add(0);
  };
  EXPECT_EQ(decode(wanted(32).frame(), kLimits).refusal, Refusal::kNone);
  expect_refused_cheaply(wanted(31).frame(), "a digest cut off");
}

// PROGRESS whose complaint has that many bytes.
Raw raw_progress(bool complains, std::uint32_t complaint_bytes) {
  Raw raw = Raw::message(kProgressTag).add(Raw::structure(0, 6, 1)).add(1).add(complains ? 2 : 0);
  for (int i = 0; i < 4; ++i) raw.add(0);
  raw.add(complaint_bytes == 0 ? kNothing : blob(0, complaint_bytes));
  for (std::uint32_t i = 0; i < (complaint_bytes + 7) / 8; ++i) raw.add(0);
  return raw;
}

TEST(Codec, AComplaintIsSignedAndNothingElseIs) {
  EXPECT_EQ(decode(raw_progress(false, 0).frame(), kLimits).refusal, Refusal::kNone);
  EXPECT_EQ(decode(raw_progress(true, 64).frame(), kLimits).refusal, Refusal::kNone);
  expect_refused_cheaply(raw_progress(true, 0).frame(), "a complaint without a signature");
  expect_refused_cheaply(raw_progress(true, 63).frame(), "a signature of 63 bytes");
  expect_refused_cheaply(raw_progress(false, 64).frame(), "a signature of nothing");
}

TEST(Codec, RefusesAMissingCertificateOrState) {
  expect_refused_cheaply(Raw::message(kStableTag).add(Raw::structure(0, 0, 2)).add(kNothing).add(kNothing).frame(),
                         "a certificate of nothing");
  expect_refused_cheaply(
      Raw::message(kOrderProofTag).add(Raw::structure(0, 1, 2)).add(1).add(kNothing).add(kNothing).frame(),
      "an order proof without a certificate");
  expect_refused_cheaply(
      Raw::message(kCheckpointTag).add(Raw::structure(0, 1, 2)).add(0).add(kNothing).add(blob(0, 64)).frame(),
      "a checkpoint of nothing");
}

TEST(Codec, RefusesViewChangesThatShareTheirClaims) {
  // A NEW-VIEW of 16 VIEW-CHANGEs with the same 1,024 claims: 800 KiB of work for 50 KiB of bytes.
  constexpr std::int32_t kParts = 16;
  constexpr std::int32_t kClaimsWords = 1'024 * 6;
  Raw raw = Raw::message(kNewViewTag).add(Raw::structure(0, 3, 3)).add(0).add(1).add(0);
  raw.add(Raw::list(2, 7, kParts * 6)).add(kNothing).add(blob(1 + kParts * 6 + kClaimsWords, 64));
  raw.add(Raw::structure(kParts, 2, 4));
  for (std::int32_t i = 0; i < kParts; ++i) {
    const std::int32_t rest = (kParts - i - 1) * 6;  // words between this part and the claims
    raw.add(0).add(1).add(kNothing).add(Raw::list(rest + 2, 2, kClaimsWords * 8)).add(kNothing);
    raw.add(Raw::list(rest + kClaimsWords, 2, 64));
  }
  for (std::int32_t i = 0; i < kClaimsWords + 8; ++i) raw.add(0);
  expect_refused_cheaply(raw.frame(), "shared claims");
  // Laid out the same way, a single part is accepted: the sharing is what was refused.
  Raw single = Raw::message(kNewViewTag).add(Raw::structure(0, 3, 3)).add(0).add(1).add(0);
  single.add(Raw::list(2, 7, 6)).add(kNothing).add(blob(1 + 6 + kClaimsWords, 64)).add(Raw::structure(1, 2, 4));
  single.add(0).add(1).add(kNothing).add(Raw::list(2, 2, kClaimsWords * 8)).add(kNothing).add(blob(kClaimsWords, 64));
  for (std::int32_t i = 0; i < kClaimsWords + 8; ++i) single.add(0);
  EXPECT_EQ(decode(single.frame(), kLimits).refusal, Refusal::kNone);
}

TEST(Codec, RefusesPayloadsLongerThanTheirLimit) {
  CodecLimits tight;
  tight.op_bytes_max = 4;
  tight.status_bytes_max = 4;
  const SharedBytes five = SharedBytes::copy(std::string_view("12345"));
  auto request = std::make_shared<Request>();
  request->op = five;
  auto header = std::make_shared<BatchHeader>();
  header->references.resize(1);
  const std::vector<Message> messages = {
      {{}, Bodies{{request}}},
      {{}, Requests{{}, {{RequestNumber{1}, 0, five}}}},
      {{}, Acks{{}, {{RequestNumber{1}, {}, true, five}}}},
      {{}, Batch{header, {}, {request}}},
      {{}, Replies{{}, {{0, five}}}},
      {{}, StatusReport{"12345"}},
  };
  for (const Message& message : messages) {
    EXPECT_EQ(refusal_of(message, tight), Refusal::kOversize) << kind_name(message.body.index());
    EXPECT_EQ(refusal_of(message), Refusal::kNone) << kind_name(message.body.index());
  }
}

TEST(Codec, RefusesFlagsNobodyDefined) {
  auto request = std::make_shared<Request>();
  request->flags = 1;
  auto header = std::make_shared<BatchHeader>();
  header->references.resize(1);
  EXPECT_EQ(refusal_of({{}, Bodies{{request}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, Batch{header, {}, {request}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, Requests{{}, {{RequestNumber{1}, 2, {}}}}}), Refusal::kMalformed);
}

TEST(Codec, RefusesSlotListsOutOfOrderOrOutOfRange) {
  const auto suspect = [](std::vector<SlotId> agreeing) {
    Suspect s;
    s.agreeing = std::move(agreeing);
    return Message{{}, s};
  };
  EXPECT_EQ(refusal_of(suspect({SlotId{0}, SlotId{2}})), Refusal::kNone);
  EXPECT_EQ(refusal_of(suspect({SlotId{2}, SlotId{0}})), Refusal::kMalformed);
  EXPECT_EQ(refusal_of(suspect({SlotId{1}, SlotId{1}})), Refusal::kMalformed);
  EXPECT_EQ(refusal_of(suspect({SlotId{11}})), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, Vote{{}, {}, SlotId{11}, {}, {}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, SlotDead{SlotId{60000}, {}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, ExecCheckpoint{{}, SlotId{11}, {}, {}, {}, {}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, FetchState{0, SlotId{11}, {}, {}, {}}}), Refusal::kMalformed);
}

TEST(Codec, RefusesNumbersThatNameNothing) {
  EXPECT_EQ(refusal_of({{}, Rejected{{}, {}, 0}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, Rejected{{}, {}, 200}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, Replies{{}, {{kLimits.batch_requests_max, {}}}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, FetchReplies{{}, {{kLimits.batch_requests_max, {}, {}, {}}}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, ReplyDigests{{}, {{kLimits.batch_requests_max, {}}}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, FetchState{0, {}, {}, {{2, 0, 16, 0, {}}}, {{0, 16, true}}}}), Refusal::kNone);
  EXPECT_EQ(refusal_of({{}, FetchState{0, {}, {}, {{3, 0, 0, 0, {}}}, {}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, FetchState{0, {}, {}, {{1, 0, 17, 0, {}}}, {}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, FetchState{0, {}, {}, {}, {{0, 17, false}}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, StateParts{0, {{2, 0, 16, {}}}}}), Refusal::kNone);
  EXPECT_EQ(refusal_of({{}, StateParts{0, {{3, 0, 0, {}}}}}), Refusal::kMalformed);
  EXPECT_EQ(refusal_of({{}, StateParts{0, {{2, 0, 17, {}}}}}), Refusal::kMalformed);
  Wake wake;
  wake.signer.value = 16;
  EXPECT_EQ(refusal_of({{}, wake}), Refusal::kMalformed);
  Checkpoint checkpoint;
  checkpoint.signer.value = 16;
  EXPECT_EQ(refusal_of({{}, checkpoint}), Refusal::kMalformed);
  StableCertificate certificate = *a_certificate(3);
  certificate.parts[2].signer.value = 16;
  EXPECT_EQ(refusal_of({{}, Stable{std::make_shared<const StableCertificate>(certificate)}}), Refusal::kMalformed);
  ViewChange change = a_view_change(1, 1);
  change.signer.value = 16;
  EXPECT_EQ(refusal_of({{}, std::make_shared<const ViewChange>(change)}), Refusal::kMalformed);
  change = a_view_change(1, 1);
  change.complaints[2].signer.value = 16;
  EXPECT_EQ(refusal_of({{}, std::make_shared<const ViewChange>(change)}), Refusal::kMalformed) << "a complaint's";
  NewView view = a_new_view(3, 1, change);
  EXPECT_EQ(refusal_of({{}, std::make_shared<const NewView>(view)}), Refusal::kMalformed) << "a signer inside";
  view = a_new_view(3, 1, a_view_change(1, 1));
  view.signer.value = 16;
  EXPECT_EQ(refusal_of({{}, std::make_shared<const NewView>(view)}), Refusal::kMalformed);
  Suspect suspect;
  suspect.why = static_cast<Suspicion>(3);
  EXPECT_EQ(refusal_of({{}, suspect}), Refusal::kMalformed);
  EpochNotice notice;
  notice.incarnations.resize(2);
  EXPECT_EQ(refusal_of({{}, notice}), Refusal::kMalformed);
}

}  // namespace
}  // namespace zz::agreement
