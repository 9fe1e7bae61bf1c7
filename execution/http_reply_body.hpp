#pragma once

// What is done to the bodies of web replies so that equal replicas give equal ones. Const after construction, any
// thread.

#include <boost/regex.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace zz::execution {

// Removes what the drop patterns match (execution/http_canonical.hpp says how they are written). Time and stack are
// bounded for any body: an expression that would need more fails.
class DropPatterns {
 public:
  static Result<DropPatterns> make(const std::vector<std::string>& patterns);
  [[nodiscard]] bool empty() const { return patterns_.empty(); }
  // Some pattern counts for replies of this status.
  [[nodiscard]] bool any_for(unsigned status) const;
  // Nothing when matching costs too much.
  [[nodiscard]] std::optional<std::string> apply(std::string body, unsigned status) const;

 private:
  struct Pattern {
    unsigned status = 0;  // 0: any
    boost::regex expression;
  };
  std::vector<Pattern> patterns_;
};

// text/*, XML or JSON, by the value of Content-Type.
[[nodiscard]] bool is_textual(std::string_view content_type);

// Puts the responses of a multistatus body (RFC 4918 §13) in order of their href: directories are listed as the file
// system has them, which differs between machines, and the order means nothing. Anything else comes back as it is.
[[nodiscard]] std::string order_multistatus(std::string body);

}  // namespace zz::execution
