#include "crypto/certificate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

namespace zz::crypto {
namespace {

class Certificates : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(init().ok()); }

  // What a person's tool would say about `leaf` when it trusts `authority`.
  static int judge(X509* leaf, X509* authority) {
    X509_STORE* const store = X509_STORE_new();
    X509_STORE_add_cert(store, authority);
    X509_STORE_CTX* const context = X509_STORE_CTX_new();
    X509_STORE_CTX_init(context, store, leaf, nullptr);
    const int good = X509_verify_cert(context);
    const int error = good == 1 ? X509_V_OK : X509_STORE_CTX_get_error(context);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return error;
  }
};

TEST_F(Certificates, OfAPartyVerifyUnderTheClusterAuthority) {
  const SecretKey authority_key = SecretKey::generate();
  const SecretKey node_key = SecretKey::generate();
  const auto authority = make_certificate(
      {.subject = "zz CA", .issuer = "zz CA", .key = authority_key.public_key(), .authority = true}, authority_key);
  const auto node = make_certificate(
      {.subject = "node-0", .issuer = "zz CA", .key = node_key.public_key(), .authority = false}, authority_key);
  ASSERT_TRUE(authority.ok()) << authority.error();
  ASSERT_TRUE(node.ok()) << node.error();
  EXPECT_EQ(judge(node->get(), authority->get()), X509_V_OK);
}

TEST_F(Certificates, OfAnotherAuthorityDoNotVerify) {
  const SecretKey authority_key = SecretKey::generate();
  const SecretKey impostor_key = SecretKey::generate();
  const auto authority = make_certificate(
      {.subject = "zz CA", .issuer = "zz CA", .key = authority_key.public_key(), .authority = true}, authority_key);
  const auto forged = make_certificate(
      {.subject = "node-0", .issuer = "zz CA", .key = impostor_key.public_key(), .authority = false}, impostor_key);
  ASSERT_TRUE(authority.ok() && forged.ok());
  EXPECT_EQ(judge(forged->get(), authority->get()), X509_V_ERR_CERT_SIGNATURE_FAILURE);
}

TEST_F(Certificates, AreWrittenAsPem) {
  const SecretKey key = SecretKey::generate();
  const auto made =
      make_certificate({.subject = "zz", .issuer = "zz", .key = key.public_key(), .authority = false}, key);
  ASSERT_TRUE(made.ok());
  const Result<std::string> pem = to_pem(**made);
  ASSERT_TRUE(pem.ok());
  EXPECT_THAT(*pem, ::testing::StartsWith("-----BEGIN CERTIFICATE-----\n"));
  EXPECT_THAT(*pem, ::testing::EndsWith("-----END CERTIFICATE-----\n"));
}

TEST_F(Certificates, ANameThatX509CannotHoldIsAnError) {
  const SecretKey key = SecretKey::generate();
  const auto made = make_certificate(
      {.subject = std::string(65, 'a'), .issuer = "zz", .key = key.public_key(), .authority = false}, key);
  EXPECT_FALSE(made.ok());
}

}  // namespace
}  // namespace zz::crypto
