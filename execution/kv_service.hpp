#pragma once

// KvService: the sample application, a key-value store in memory. One operation is one line of text:
//
//   put KEY VALUE   "ok"                       VALUE is the rest of the line, and may hold spaces
//   get KEY         the value, or "none"
//   del KEY         "ok", or "none"
//   add KEY N       the new value              N and the value are decimal 64-bit integers; a missing key counts as 0
//   time            the agreed time of the batch, microseconds since 1970
//   seed            the agreed seed of the batch, 64 hexadecimal digits
//
// Anything else gets "error …" and changes nothing. One thread.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "execution/service.hpp"

namespace zz::execution {

class KvService final : public Service {
 public:
  // Keys and values together; an operation that would exceed it gets "error full".
  static constexpr std::size_t kBytesMax = 256u << 20;
  static constexpr std::size_t kKeyBytesMax = 1024;

  Bytes execute(const Invocation& invocation) override;

  [[nodiscard]] std::size_t keys() const { return values_.size(); }

 private:
  std::string put(std::string_view key, std::string_view value);
  std::string add(std::string_view key, std::string_view amount);
  std::string erase(std::string_view key);

  std::map<std::string, std::string, std::less<>> values_;
  std::size_t bytes_ = 0;
};

}  // namespace zz::execution
