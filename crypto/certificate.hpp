#pragma once

// X.509 certificates with Ed25519 keys (RFC 8410). The protocol trusts pinned keys and never looks at names,
// dates or issuers; certificates exist because TLS carries keys in them and because people's tools show them.
// Any thread.

#include <memory>
#include <string>

#include "base/result.hpp"
#include "crypto/sign.hpp"

// NOLINTBEGIN: OpenSSL's own names
struct evp_pkey_st;
struct x509_st;
// NOLINTEND

namespace zz::crypto {

struct FreePrivateKey {
  void operator()(evp_pkey_st* key) const;
};
struct FreeCertificate {
  void operator()(x509_st* certificate) const;
};
using PrivateKeyPtr = std::unique_ptr<evp_pkey_st, FreePrivateKey>;
using CertificatePtr = std::unique_ptr<x509_st, FreeCertificate>;

struct CertificateRequest {
  std::string subject;     // common name, at most 64 bytes
  std::string issuer;      // common name of whoever signs
  PublicKey key;           // the subject's
  bool authority = false;  // may sign other certificates
};

// The same key as OpenSSL holds it; null when OpenSSL has no Ed25519.
PrivateKeyPtr to_openssl(const SecretKey& key);
// Signed by `issuer`, valid from 2000 to the end of 9999: dates are not what ends trust here.
Result<CertificatePtr> make_certificate(const CertificateRequest& request, const SecretKey& issuer);
Result<std::string> to_pem(const x509_st& certificate);
// OpenSSL's oldest queued error as one line; empties the queue.
std::string take_openssl_error();

}  // namespace zz::crypto
