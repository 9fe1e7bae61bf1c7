#include "crypto/certificate.hpp"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sodium.h>

namespace zz::crypto {
namespace {

constexpr int kVersion3 = 2;  // X509_set_version counts from 0
constexpr std::size_t kSerialBytes = 16;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeExtension {
  void operator()(X509_EXTENSION* extension) const { X509_EXTENSION_free(extension); }
};
struct FreeBignum {
  void operator()(BIGNUM* number) const { BN_free(number); }
};

Error openssl_error(std::string_view what) { return Error{fmt::format("{}: {}", what, take_openssl_error())}; }

bool set_name(X509_NAME* name, const std::string& common_name) {
  return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(common_name.data()),
                                    static_cast<int>(common_name.size()), -1, 0) == 1;
}

bool set_random_serial(X509* certificate) {
  unsigned char raw[kSerialBytes];
  randombytes_buf(raw, sizeof raw);
  raw[0] &= 0x7f;  // serial numbers are positive
  const std::unique_ptr<BIGNUM, FreeBignum> number(BN_bin2bn(raw, sizeof raw, nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_dates(X509* certificate) {
  return ASN1_TIME_set_string_X509(X509_getm_notBefore(certificate), "20000101000000Z") == 1 &&
         ASN1_TIME_set_string_X509(X509_getm_notAfter(certificate), "99991231235959Z") == 1;
}

bool set_authority(X509* certificate, bool authority) {
  const char* const value = authority ? "critical,CA:TRUE" : "critical,CA:FALSE";
  const std::unique_ptr<X509_EXTENSION, FreeExtension> constraints(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, value));
  return constraints && X509_add_ext(certificate, constraints.get(), -1) == 1;
}

}  // namespace

void FreePrivateKey::operator()(evp_pkey_st* key) const { EVP_PKEY_free(key); }
void FreeCertificate::operator()(x509_st* certificate) const { X509_free(certificate); }

std::string take_openssl_error() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "no detail";
  const char* const reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : fmt::format("OpenSSL error {:#x}", code);
}

PrivateKeyPtr to_openssl(const SecretKey& key) {
  auto seed = key.seed();
  PrivateKeyPtr out(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
  sodium_memzero(seed.data(), seed.size());
  return out;
}

Result<CertificatePtr> make_certificate(const CertificateRequest& request, const SecretKey& issuer) {
  ERR_clear_error();
  const PrivateKeyPtr subject_key(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, request.key.bytes.data(), request.key.bytes.size()));
  const PrivateKeyPtr issuer_key = to_openssl(issuer);
  CertificatePtr certificate(X509_new());
  if (!subject_key || !issuer_key || !certificate) return openssl_error("cannot make a certificate");
  X509* const x = certificate.get();
  const bool filled = X509_set_version(x, kVersion3) == 1 && set_random_serial(x) && set_dates(x) &&
                      set_name(X509_get_subject_name(x), request.subject) &&
                      set_name(X509_get_issuer_name(x), request.issuer) && X509_set_pubkey(x, subject_key.get()) == 1 &&
                      set_authority(x, request.authority);
  if (!filled) return openssl_error("cannot fill in a certificate");
  if (X509_sign(x, issuer_key.get(), nullptr) == 0) return openssl_error("cannot sign a certificate");
  return certificate;
}

Result<std::string> to_pem(const x509_st& certificate) {
  ERR_clear_error();
  const std::unique_ptr<BIO, FreeBio> out(BIO_new(BIO_s_mem()));
  if (!out || PEM_write_bio_X509(out.get(), &certificate) != 1) return openssl_error("cannot write a certificate");
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<std::size_t>(size));
}

}  // namespace zz::crypto
