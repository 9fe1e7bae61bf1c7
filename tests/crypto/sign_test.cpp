#include "crypto/sign.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace zz::crypto {
namespace {

using ::testing::HasSubstr;

template <std::size_t N>
std::array<std::uint8_t, N> unhex(std::string_view text) {
  std::array<std::uint8_t, N> out{};
  EXPECT_TRUE(from_hex(text, out));
  return out;
}

struct Vector {
  const char* seed;
  const char* key;
  const char* message;
  const char* signature;
};

// RFC 8032, section 7.1: TEST 1, 2, 3 and SHA(abc).
constexpr Vector kVectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f"
     "0595bbe2465"
     "5141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2ea"
     "eb4302aeeb0"
     "0d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e"
     "9716ed28dc0"
     "27beceea1ec40a"},
    {"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
     "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d442"
     "3643ce80e2a"
     "9ac94fa54ca49f",
     "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179"
     "c138ac17ad9"
     "bef1177331a704"},
};

class Ed25519 : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(init().ok()); }
};

TEST_F(Ed25519, GivesThePublishedKeysAndSignatures) {
  for (const Vector& vector : kVectors) {
    Bytes message(std::string_view(vector.message).size() / 2);
    ASSERT_TRUE(from_hex(vector.message, message));
    const SecretKey key = SecretKey::from_seed(unhex<32>(vector.seed));
    EXPECT_EQ(to_hex(key.public_key().bytes), vector.key);
    const Signature signature = key.sign(message);
    EXPECT_EQ(to_hex(signature.bytes), vector.signature);
    EXPECT_TRUE(verify(key.public_key(), message, signature));
  }
}

TEST_F(Ed25519, RefusesASignatureOfAnythingElse) {
  const SecretKey key = SecretKey::generate();
  const SecretKey other = SecretKey::generate();
  const Signature good = key.sign(as_bytes("wake slot 2"));
  EXPECT_TRUE(verify(key.public_key(), as_bytes("wake slot 2"), good));
  EXPECT_FALSE(verify(key.public_key(), as_bytes("wake slot 3"), good));
  EXPECT_FALSE(verify(other.public_key(), as_bytes("wake slot 2"), good));
  for (std::size_t i = 0; i < good.bytes.size(); ++i) {
    Signature bent = good;
    bent.bytes[i] ^= 1;
    EXPECT_FALSE(verify(key.public_key(), as_bytes("wake slot 2"), bent)) << "byte " << i;
  }
  EXPECT_FALSE(verify(PublicKey{}, as_bytes("wake slot 2"), Signature{}));
}

TEST_F(Ed25519, AKeyMovesAndKeepsItsSeed) {
  const auto seed = unhex<32>(kVectors[0].seed);
  SecretKey first = SecretKey::from_seed(seed);
  const SecretKey second = std::move(first);
  EXPECT_EQ(second.seed(), seed);
  SecretKey third = SecretKey::generate();
  third = SecretKey::from_seed(seed);
  EXPECT_EQ(third.sign(as_bytes("x")), second.sign(as_bytes("x")));
}

TEST_F(Ed25519, TwoGeneratedKeysDiffer) {
  EXPECT_NE(SecretKey::generate().public_key(), SecretKey::generate().public_key());
}

TEST(SignedFieldsTest, CoverDomainClusterVersionKindAndFieldBorders) {
  const ClusterId one{};
  ClusterId two{};
  two.bytes[0] = 1;
  const auto bytes = [](const SignedFields& fields) { return Bytes(fields.view().begin(), fields.view().end()); };
  SignedFields base(one, "WAKE");
  base.u64(1).bytes(as_bytes("ab"));
  SignedFields same(one, "WAKE");
  same.u64(1).bytes(as_bytes("ab"));
  EXPECT_EQ(bytes(base), bytes(same));
  SignedFields cluster(two, "WAKE");
  cluster.u64(1).bytes(as_bytes("ab"));
  SignedFields kind(one, "JOIN");
  kind.u64(1).bytes(as_bytes("ab"));
  SignedFields borders(one, "WAKE");
  borders.u64(1).bytes(as_bytes("a")).bytes(as_bytes("b"));
  EXPECT_NE(bytes(base), bytes(cluster));
  EXPECT_NE(bytes(base), bytes(kind));
  EXPECT_NE(bytes(base), bytes(borders));
}

class KeyFile : public Ed25519 {
 protected:
  void SetUp() override {
    Ed25519::SetUp();
    std::string pattern = (std::filesystem::temp_directory_path() / "zz-key-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/node-0.key";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void write(const std::string& text, mode_t mode) {
    std::ofstream(path_, std::ios::binary) << text;
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
  }
  [[nodiscard]] std::string load_error() const {
    const Result<SecretKey> loaded = load_secret_key(path_);
    return loaded.ok() ? "" : loaded.error();
  }

  std::string directory_;
  std::string path_;
};

TEST_F(KeyFile, IsWrittenForItsUserOnlyAndReadBack) {
  const SecretKey key = SecretKey::generate();
  ASSERT_TRUE(save_secret_key(path_, key).ok());
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  const Result<SecretKey> loaded = load_secret_key(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.error();
  EXPECT_EQ(loaded->seed(), key.seed());
}

TEST_F(KeyFile, IsNeverOverwritten) {
  ASSERT_TRUE(save_secret_key(path_, SecretKey::generate()).ok());
  const Result<void> again = save_secret_key(path_, SecretKey::generate());
  ASSERT_FALSE(again.ok());
  EXPECT_THAT(again.error(), HasSubstr("File exists"));
  EXPECT_THAT(again.error(), HasSubstr(path_));
}

TEST_F(KeyFile, ThatOthersMayReadIsRefused) {
  const std::string text = to_hex(SecretKey::generate().seed()) + "\n";
  for (const mode_t mode : {0604u, 0640u, 0660u, 0644u, 0777u, 0601u}) {
    write(text, mode);
    EXPECT_THAT(load_error(), HasSubstr("others could read it")) << std::oct << mode;
  }
  for (const mode_t mode : {0600u, 0400u, 0700u}) {
    write(text, mode);
    EXPECT_EQ(load_error(), "") << std::oct << mode;
    std::filesystem::remove(path_);
  }
}

TEST_F(KeyFile, ThatBelongsToSomebodyElseIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to give a file away";
  write(to_hex(SecretKey::generate().seed()) + "\n", 0600);
  ASSERT_EQ(::chown(path_.c_str(), 65'534, 65'534), 0);
  EXPECT_THAT(load_error(), HasSubstr("belongs to user 65534"));
}

TEST_F(KeyFile, WithOtherContentIsRefused) {
  const std::string digits = to_hex(SecretKey::generate().seed());
  for (const std::string& text :
       {std::string(), std::string("\n"), digits.substr(1) + "\n", digits + "0\n", digits + " ", digits + "\n\n",
        "g" + digits.substr(1) + "\n", std::string(100, 'a')}) {
    write(text, 0600);
    EXPECT_THAT(load_error(), HasSubstr("not a key file")) << text;
  }
}

TEST_F(KeyFile, MissingIsAnErrorThatNamesIt) {
  EXPECT_THAT(load_error(), HasSubstr(path_));
  EXPECT_THAT(load_error(), HasSubstr("No such file"));
}

TEST_F(KeyFile, ThatIsALinkOrADirectoryIsRefused) {
  ASSERT_TRUE(save_secret_key(directory_ + "/real.key", SecretKey::generate()).ok());
  std::filesystem::create_symlink(directory_ + "/real.key", path_);
  EXPECT_THAT(load_error(), HasSubstr("cannot open key file"));
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_THAT(load_error(), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace zz::crypto
