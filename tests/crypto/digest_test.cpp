#include "crypto/digest.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace zz::crypto {
namespace {

std::string hex(const Digest& digest) { return to_hex(digest.bytes); }

// Examples of FIPS 180-4 (NIST "Cryptographic Standards and Guidelines: Examples with Intermediate Values").
TEST(Sha256, GivesThePublishedValues) {
  EXPECT_EQ(hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256(as_bytes("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(sha256(Bytes(1'000'000, 'a'))), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// What a DigestWriter stands for: its fields laid out one after the other.
struct Layout {
  Bytes bytes;
  void u64(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
  void raw(ByteView view) { bytes.insert(bytes.end(), view.begin(), view.end()); }
};

TEST(DigestWriter, HashesItsFieldsLittleEndianWithLengths) {
  Layout layout;
  layout.u64(6);
  layout.raw(as_bytes("domain"));
  layout.u64(0x0102030405060708);
  layout.u64(3);
  layout.raw(as_bytes("abc"));
  layout.raw(sha256({}).bytes);
  layout.u64(42);
  DigestWriter writer("domain");
  writer.u64(0x0102030405060708).bytes(as_bytes("abc")).digest(sha256({})).id(Seq{42});
  EXPECT_EQ(writer.finish(), sha256(layout.bytes));
}

// The writer's buffer holds 512 bytes: sizes below, at and above it, and fields longer than it, give the same bytes.
TEST(DigestWriter, GivesTheSameDigestWhateverItsBufferHolds) {
  for (const std::size_t field : {0u, 1u, 7u, 100u, 479u, 480u, 481u, 487u, 488u, 489u, 511u, 512u, 513u, 5000u}) {
    for (int fields = 1; fields <= 5; ++fields) {
      Layout layout;
      layout.u64(1);
      layout.raw(as_bytes("d"));
      DigestWriter writer("d");
      for (int i = 0; i < fields; ++i) {
        const Bytes value(field, static_cast<std::uint8_t>(i));
        layout.u64(value.size());
        layout.raw(value);
        writer.bytes(value);
      }
      EXPECT_EQ(writer.finish(), sha256(layout.bytes)) << fields << " fields of " << field;
    }
  }
}

TEST(DigestWriter, KeepsFieldBordersApart) {
  DigestWriter one("d");
  one.bytes(as_bytes("ab")).bytes(as_bytes("c"));
  DigestWriter two("d");
  two.bytes(as_bytes("a")).bytes(as_bytes("bc"));
  EXPECT_NE(one.finish(), two.finish());
}

TEST(DigestWriter, KeepsDomainsApart) {
  EXPECT_NE(DigestWriter("request").u64(1).finish(), DigestWriter("reply").u64(1).finish());
}

TEST(DigestWriter, WritersOfOneThreadDoNotDisturbEachOther) {
  const Bytes big(2000, 'x');
  DigestWriter alone("a");
  alone.bytes(big).u64(1);
  const Digest expected = alone.finish();
  DigestWriter first("a");
  first.bytes(big);
  DigestWriter second("b");
  second.bytes(big).bytes(big);
  static_cast<void>(sha256(big));
  first.u64(1);
  EXPECT_EQ(first.finish(), expected);
  EXPECT_NE(second.finish(), expected);
}

TEST(DigestWriter, AWriterThatIsGivenUpLeavesNothingBehind) {
  const Bytes big(2000, 'x');
  {
    DigestWriter abandoned("a");
    abandoned.bytes(big);
  }
  DigestWriter writer("a");
  writer.bytes(big);
  Layout layout;
  layout.u64(1);
  layout.raw(as_bytes("a"));
  layout.u64(big.size());
  layout.raw(big);
  EXPECT_EQ(writer.finish(), sha256(layout.bytes));
}

TEST(Sha256, ThreadsWorkIndependently) {
  const Bytes big(3000, 'y');
  const Digest expected = sha256(big);
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) wrong[t] += sha256(big) == expected ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int count : wrong) EXPECT_EQ(count, 0);
}

}  // namespace
}  // namespace zz::crypto
