#include "net/tls_pipe.hpp"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "base/assert.hpp"

namespace zz::net {
namespace {

// A certificate of ours is a few hundred bytes; the library would buffer 100 KiB.
constexpr long kCertificateBytesMax = 4 << 10;
// A record's share of plain text, and what it adds to it (RFC 8446 §5.2), rounded up.
constexpr std::size_t kRecordPlainBytes = 16u << 10;
constexpr std::size_t kRecordOverheadBytes = 32;
// Capacity that an idle connection may keep for its output.
constexpr std::size_t kIdleOutputBytesMax = 512u << 10;

int read_input(BIO* bio, char* into, int size) {
  auto& io = *static_cast<TlsPipe::Io*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (io.input.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const std::size_t count = std::min(io.input.size(), static_cast<std::size_t>(size));
  std::memcpy(into, io.input.data(), count);
  io.input = io.input.subspan(count);
  return static_cast<int>(count);
}

int append_output(BIO* bio, const char* from, int size) {
  auto& io = *static_cast<TlsPipe::Io*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (static_cast<std::size_t>(size) > io.output_bytes_max - std::min(io.output_bytes_max, io.output.size())) return -1;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(from);  // of the vector's own type: one memmove
  io.output.insert(io.output.end(), bytes, bytes + size);
  return size;
}

long control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

// The library's table of the three functions above: a constant, made on first use because it has no static form.
const BIO_METHOD* span_method() {
  static const std::unique_ptr<BIO_METHOD, void (*)(BIO_METHOD*)> kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "zz span");
    ZZ_ASSERT(method != nullptr);
    BIO_meth_set_read(method, read_input);
    BIO_meth_set_write(method, append_output);
    BIO_meth_set_ctrl(method, control);
    return std::unique_ptr<BIO_METHOD, void (*)(BIO_METHOD*)>(method, BIO_meth_free);
  }();
  return kMethod.get();
}

// The library judges a call by this thread's error queue: what others left there must go. Looking is cheaper.
void clear_errors() {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

}  // namespace

TlsPipe::TlsPipe(ssl_st* connection, bool server, std::size_t output_bytes_max) : connection_(connection) {
  ZZ_ASSERT(connection_ != nullptr);
  io_.output_bytes_max = output_bytes_max;
  BIO* bio = BIO_new(span_method());
  ZZ_ASSERT(bio != nullptr);
  BIO_set_data(bio, &io_);
  BIO_set_init(bio, 1);
  SSL_set_bio(connection_, bio, bio);  // takes the one reference for both directions
  SSL_set_max_cert_list(connection_, kCertificateBytesMax);
  // A stranger gets no buffer that is not in use; a peer keeps them, that is faster.
  SSL_set_mode(connection_, SSL_MODE_RELEASE_BUFFERS);
  if (server) {
    SSL_set_accept_state(connection_);
  } else {
    SSL_set_connect_state(connection_);
  }
}

TlsPipe::~TlsPipe() { SSL_free(connection_); }

TlsPipe::Status TlsPipe::handshake() {
  clear_errors();
  const int result = SSL_do_handshake(connection_);
  if (result != 1) return fail(result);
  SSL_clear_mode(connection_, SSL_MODE_RELEASE_BUFFERS);
  return Status::kDone;
}

TlsPipe::Status TlsPipe::read(std::span<std::uint8_t> into, std::size_t& count) {
  // The library takes records one by one: without input it can only have more of the current one.
  if (io_.input.empty() && SSL_pending(connection_) == 0) return Status::kWantsInput;
  clear_errors();
  const int result = SSL_read(connection_, into.data(), static_cast<int>(std::min<std::size_t>(into.size(), INT_MAX)));
  if (result <= 0) return fail(result);
  count = static_cast<std::size_t>(result);
  return Status::kDone;
}

bool TlsPipe::write(ByteView plain_text) {
  const std::size_t records = plain_text.size() / kRecordPlainBytes + 1;
  io_.output.reserve(io_.output.size() + plain_text.size() + records * kRecordOverheadBytes);
  while (!plain_text.empty()) {
    clear_errors();
    const int result =
        SSL_write(connection_, plain_text.data(), static_cast<int>(std::min<std::size_t>(plain_text.size(), INT_MAX)));
    if (result <= 0) {
      fail(result);
      return false;
    }
    plain_text = plain_text.subspan(static_cast<std::size_t>(result));
  }
  return true;
}

void TlsPipe::shut() {
  clear_errors();
  SSL_shutdown(connection_);
}

void TlsPipe::sent(std::size_t count) {
  ZZ_ASSERT(count <= output().size());
  io_.sent += count;
  if (io_.sent < io_.output.size()) return;
  io_.sent = 0;
  io_.output.clear();
  if (io_.output.capacity() > kIdleOutputBytesMax) Bytes().swap(io_.output);
}

TlsPipe::Status TlsPipe::fail(int result) {
  const int error = SSL_get_error(connection_, result);
  if (error == SSL_ERROR_WANT_READ) return Status::kWantsInput;
  if (error == SSL_ERROR_ZERO_RETURN) return Status::kClosed;
  const unsigned long code = ERR_peek_error();
  const char* reason = ERR_reason_error_string(code);
  failure_ = reason != nullptr ? reason : "the TLS library gave up";
  const bool checked_here = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED;
  if (checked_here) failure_ = "the peer's key is not known here";
  if (const long verdict = SSL_get_verify_result(connection_); checked_here && verdict != X509_V_OK) {
    failure_ += std::string(" (") + X509_verify_cert_error_string(verdict) + ")";
  }
  const int why = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  if (why == SSL_R_NO_APPLICATION_PROTOCOL || why == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL) {
    failure_ = "the other end speaks another version of the protocol, or none of zz";
  }
  ERR_clear_error();
  return Status::kFailed;
}

}  // namespace zz::net
