#include "execution/state/parts.hpp"

#include <gtest/gtest.h>

#include "base/prng.hpp"

namespace zz::execution::state {
namespace {

Digest some_digest(std::uint8_t seed) {
  Digest digest;
  digest.bytes.fill(seed);
  return digest;
}

NodeImage some_node() {
  NodeImage node;
  node.place = {0xab00'0000'0000'0000, 2};
  node.children.push_back({{0xab10'0000'0000'0000, 4}, 3, 70'000, some_digest(1)});
  node.children.push_back({{0xab20'0000'0000'0007, kLeafDepth}, 1, 65'536, some_digest(2)});
  node.children.push_back({{0xabf0'0000'0000'0000, 3}, 2, 0, some_digest(3)});
  return node;
}

TEST(StateParts, DecodeToWhatWasEncoded) {
  const NodeImage node = some_node();
  EXPECT_EQ(decode_node(encode(node)), node);
  EXPECT_LE(encode(node).size(), kNodeBytesMax);
  EXPECT_EQ(decode_root(encode(RootImage{})), RootImage{});
  const RootImage root{node.children[0]};
  EXPECT_EQ(decode_root(encode(root)), root);
  EXPECT_EQ(totals_of(node), (Totals{6, 135'536}));
}

TEST(StateParts, AreRefusedWhenCutOffOrLonger) {
  for (const Bytes& whole : {encode(some_node()), encode(RootImage{some_node().children[1]})}) {
    const auto decodes = [](const Bytes& bytes) { return decode_node(bytes) || decode_root(bytes); };
    for (std::size_t length = 0; length < whole.size(); ++length) {
      EXPECT_FALSE(decodes(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)))) << length;
    }
    Bytes longer = whole;
    longer.push_back(0);
    EXPECT_FALSE(decodes(longer));
  }
}

TEST(StateParts, HaveOneEncodingAndAnotherDigestForEveryFlippedBit) {
  const Bytes whole = encode(some_node());
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes bytes = whole;
    bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] ^ 1u << bit % 8);
    const auto node = decode_node(bytes);
    if (!node) continue;
    EXPECT_EQ(encode(*node), bytes);
    EXPECT_NE(node_digest(*node), node_digest(some_node())) << "bit " << bit;
  }
}

TEST(StateParts, AreRefusedWhenImpossible) {
  const auto refused = [](auto&& change) {
    NodeImage node = some_node();
    change(node);
    return !decode_node(encode(node));
  };
  EXPECT_TRUE(refused([](NodeImage& n) { n.children.resize(1); })) << "an inner node has two children";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children.clear(); }));
  EXPECT_TRUE(refused([](NodeImage& n) { std::swap(n.children[0], n.children[1]); })) << "in order";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[1] = n.children[0]; })) << "one per nibble";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[0].place.prefix = 0xcd10'0000'0000'0000; })) << "of another place";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[0].place.prefix |= 1; })) << "beyond its depth";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[0].place = n.place; })) << "not deeper";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[0].objects = 1; })) << "an inner node holds two objects";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[0].bytes = 3 * kObjectBytesMax + 1; })) << "more than they can be";
  EXPECT_TRUE(refused([](NodeImage& n) { n.children[1].bytes = kObjectBytesMax + 1; }));
  EXPECT_TRUE(refused([](NodeImage& n) { n.place.prefix |= 1; }));
  EXPECT_TRUE(refused([](NodeImage& n) {
    n.children[0].objects = ~std::uint64_t{0};
    n.children[2].objects = ~std::uint64_t{0};
  })) << "sums overflow";
}

TEST(StateParts, NeverPassForAnotherKind) {
  const NodeImage node = some_node();
  const Bytes bytes = encode(node);
  EXPECT_NE(object_digest(ObjectId{0}, bytes), node_digest(node));
  EXPECT_FALSE(decode_root(bytes));
  EXPECT_NE(object_digest(ObjectId{1}, bytes), object_digest(ObjectId{2}, bytes)) << "the id is bound";
  const RootImage root{Child{node.place, 6, 135'536, node_digest(node)}};
  EXPECT_NE(root_digest(root), node_digest(node));
  EXPECT_NE(root_digest(root), root_digest({}));
}

TEST(StateParts, RandomBytesNeverDoMoreThanFail) {
  Prng prng(7);
  const Bytes whole = encode(some_node());
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes = whole;
    for (std::uint64_t changes = 1 + prng.below(4); changes > 0; --changes) {
      bytes[prng.below(bytes.size())] = static_cast<std::uint8_t>(prng.next());
    }
    if (const auto node = decode_node(bytes)) {
      EXPECT_EQ(encode(*node), bytes);
    }
    if (const auto root = decode_root(bytes)) {
      EXPECT_EQ(encode(*root), bytes);
    }
  }
}

}  // namespace
}  // namespace zz::execution::state
