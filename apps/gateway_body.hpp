#pragma once

// BodyReader: collects one request body from the bytes that follow its head, by Content-Length or chunked
// (RFC 9112 §6, §7.1). One thread. Strict on purpose: one spelling of a chunk size, no white space around it,
// no control characters, no framing fields among the trailers. Extensions and trailers are read past and dropped.
//
// Invariants: never holds more than body_bytes_max of body and kFramingLineBytesMax of framing; framing as a
// whole is at most 8 bytes per byte of body beyond kChunkOverheadBytesMax, so that a body cannot be all framing.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "apps/gateway_http.hpp"
#include "base/bytes.hpp"

namespace zz::apps {

inline constexpr std::size_t kFramingLineBytesMax = 1u << 10;  // one chunk-size or trailer line
inline constexpr std::size_t kTrailerLinesMax = 32;
inline constexpr std::size_t kChunkSizeDigitsMax = 16;
inline constexpr std::size_t kChunkOverheadBytesMax = 64u << 10;

class BodyReader {
 public:
  // Content-Length beyond body_bytes_max was refused with the head.
  BodyReader(const RequestHead& head, std::uint64_t body_bytes_max);

  // Takes bytes from the front of `data` until the body is complete, `data` is used up or something is
  // refused; returns how many it took. Requires !done() and !refused().
  std::size_t feed(std::string_view data);
  [[nodiscard]] bool done() const { return state_ == State::kDone; }
  [[nodiscard]] bool refused() const { return state_ == State::kRefused; }
  [[nodiscard]] const HttpRefusal& refusal() const { return refusal_; }
  [[nodiscard]] const std::string& body() const { return body_; }
  [[nodiscard]] std::string take_body() { return std::move(body_); }

 private:
  enum class State { kFixed, kSizeLine, kData, kDataEnd, kTrailer, kDone, kRefused };

  std::size_t take_data(std::string_view data);
  void take_framing(char c);
  void end_line();
  void end_size_line();
  void end_trailer_line();
  void refuse(unsigned status, std::string reason);

  State state_;
  std::uint64_t body_bytes_max_;
  std::uint64_t left_ = 0;  // of the body (fixed) or of the current chunk
  std::uint64_t framing_bytes_ = 0;
  std::size_t trailer_lines_ = 0;
  bool after_cr_ = false;
  std::string line_;
  std::string body_;
  HttpRefusal refusal_;
};

}  // namespace zz::apps
