#pragma once

// Requests that two HTTP parsers could cut differently, or that no parser should take. The gateway must
// answer each with `status`, close the connection, and let nothing through to the service.

#include <string>
#include <vector>

namespace zz::apps {

struct SmugglingCase {
  const char* name;
  std::string bytes;
  unsigned status;
};

inline std::string repeated(const std::string& text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

inline std::vector<SmugglingCase> smuggling_cases() {
  using namespace std::string_literals;
  const std::string post = "POST /a HTTP/1.1\r\nHost: a\r\n";
  const std::string get = "GET /a HTTP/1.1\r\nHost: a\r\n";
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  const std::string last = "0\r\n\r\n";
  const std::string smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
  return {
      // Content-Length and Transfer-Encoding together
      {"LengthThenChunked", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + last + smuggled, 400},
      {"ChunkedThenLength", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + last + smuggled, 400},
      {"LengthZeroAndChunked", post + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + last, 400},
      {"LengthAndIdentity", post + "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello", 400},
      {"LengthAndUnknownCoding", post + "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\nhello", 400},
      {"GetWithBoth", get + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" + last + "G", 400},
      // Content-Length
      {"TwoDifferentLengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400},
      {"TwoEqualLengths", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
      {"LengthList", post + "Content-Length: 5, 5\r\n\r\nhello", 400},
      {"LengthListDifferent", post + "Content-Length: 5, 6\r\n\r\nhello!", 400},
      {"NegativeLength", post + "Content-Length: -1\r\n\r\n", 400},
      {"PlusLength", post + "Content-Length: +5\r\n\r\nhello", 400},
      {"HexLength", post + "Content-Length: 0x5\r\n\r\nhello", 400},
      {"LengthWithSpaceInside", post + "Content-Length: 1 0\r\n\r\nhellohello", 400},
      {"LengthWithUnderscore", post + "Content-Length: 1_0\r\n\r\nhellohello", 400},
      {"LengthWithFraction", post + "Content-Length: 5.0\r\n\r\nhello", 400},
      {"LengthWithExponent", post + "Content-Length: 5e0\r\n\r\nhello", 400},
      {"LengthEmpty", post + "Content-Length: \r\n\r\n", 400},
      {"LengthWord", post + "Content-Length: five\r\n\r\n", 400},
      {"LengthTwoToThe64", post + "Content-Length: 18446744073709551616\r\n\r\n", 400},
      {"LengthTwoToThe64PlusFive", post + "Content-Length: 18446744073709551621\r\n\r\nhello", 400},
      {"LengthManyZeros", post + "Content-Length: 0000000000000000000005\r\n\r\nhello", 400},
      {"LengthTrailingComma", post + "Content-Length: 5,\r\n\r\nhello", 400},
      {"LengthQuoted", post + "Content-Length: \"5\"\r\n\r\nhello", 400},
      {"LengthWithNul", post + "Content-Length: 5\0\r\n\r\nhello"s, 400},
      {"LengthVerticalTab",
       post + "Content-Length: \x0b"
              "5\r\n\r\nhello",
       400},
      {"LengthBeyondLimit", post + "Content-Length: 99999999\r\n\r\n", 413},
      // Transfer-Encoding
      {"CodingIdentity", post + "Transfer-Encoding: identity\r\n\r\n", 400},
      {"CodingGzip", post + "Transfer-Encoding: gzip\r\n\r\n", 400},
      {"CodingGzipChunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + last, 400},
      {"CodingChunkedIdentity", post + "Transfer-Encoding: chunked, identity\r\n\r\n" + last, 400},
      {"CodingChunkedTwice", post + "Transfer-Encoding: chunked, chunked\r\n\r\n" + last, 400},
      {"CodingTwoLines", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + last, 400},
      {"CodingTwoLinesIdentity", post + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + last,
       400},
      {"CodingXChunked", post + "Transfer-Encoding: xchunked\r\n\r\n" + last, 400},
      {"CodingChunkedX", post + "Transfer-Encoding: chunkedx\r\n\r\n" + last, 400},
      {"CodingQuoted", post + "Transfer-Encoding: \"chunked\"\r\n\r\n" + last, 400},
      {"CodingParameter", post + "Transfer-Encoding: chunked;q=1\r\n\r\n" + last, 400},
      {"CodingLeadingComma", post + "Transfer-Encoding: , chunked\r\n\r\n" + last, 400},
      {"CodingTrailingComma", post + "Transfer-Encoding: chunked,\r\n\r\n" + last, 400},
      {"CodingEmpty", post + "Transfer-Encoding:\r\n\r\n" + last, 400},
      {"CodingVerticalTab",
       post +
           "Transfer-Encoding: \x0b"
           "chunked\r\n\r\n" +
           last,
       400},
      {"CodingFormFeed", post + "Transfer-Encoding: chunked\x0c\r\n\r\n" + last, 400},
      {"CodingNul", post + "Transfer-Encoding: chunked\0\r\n\r\n"s + last, 400},
      {"CodingHighByte", post + "Transfer-Encoding: chunked\xa0\r\n\r\n" + last, 400},
      {"CodingFolded", post + "Transfer-Encoding:\r\n chunked\r\n\r\n" + last, 400},
      {"CodingSpaceBeforeColon", post + "Transfer-Encoding : chunked\r\n\r\n" + last, 400},
      {"CodingTabBeforeColon", post + "Transfer-Encoding\t: chunked\r\n\r\n" + last, 400},
      {"CodingLineStartsWithSpace", post + " Transfer-Encoding: chunked\r\n\r\n" + last, 400},
      {"CodingBareLineFeedBefore", post + "X: y\nTransfer-Encoding: chunked\r\n\r\n" + last, 400},
      {"CodingBareCarriageReturnBefore", post + "X: y\rTransfer-Encoding: chunked\r\n\r\n" + last, 400},
      {"CodingInHttp10", "POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + last, 400},
      // chunks
      {"ChunkSizeNegative", chunked + "-1\r\nhello\r\n" + last, 400},
      {"ChunkSizePlus", chunked + "+5\r\nhello\r\n" + last, 400},
      {"ChunkSizeHexPrefix", chunked + "0x5\r\nhello\r\n" + last, 400},
      {"ChunkSizeUnderscore", chunked + "0_5\r\nhello\r\n" + last, 400},
      {"ChunkSizeTwoToThe64", chunked + "10000000000000000\r\nhello\r\n" + last, 400},
      {"ChunkSizeTwoToThe64PlusFive", chunked + "10000000000000005\r\nhello\r\n" + last, 400},
      {"ChunkSizeManyZeros", chunked + repeated("0", 17) + "5\r\nhello\r\n" + last, 400},
      {"ChunkSizeBeyondLimit", chunked + "fffffff\r\nhello\r\n" + last, 413},
      {"ChunkSizeSixteenFs", chunked + "ffffffffffffffff\r\nhello\r\n" + last, 413},
      {"ChunkSizeEmpty", chunked + "\r\nhello\r\n" + last, 400},
      {"ChunkSizeWord", chunked + "xyz\r\nhello\r\n" + last, 400},
      {"ChunkSizeLeadingSpace", chunked + " 5\r\nhello\r\n" + last, 400},
      {"ChunkSizeTrailingSpace", chunked + "5 \r\nhello\r\n" + last, 400},
      {"ChunkSizeSpaceBeforeExtension", chunked + "5 ;a=b\r\nhello\r\n" + last, 400},
      {"ChunkSizeTabBeforeExtension", chunked + "5\t;a=b\r\nhello\r\n" + last, 400},
      {"ChunkSizeBareLineFeed", chunked + "5\nhello\r\n" + last, 400},
      {"ChunkSizeBareCarriageReturn", chunked + "5\rhello\r\n" + last, 400},
      {"ChunkSizeNul", chunked + "5\0\r\nhello\r\n"s + last, 400},
      {"ChunkExtensionBareLineFeed", chunked + "5;a=\"\nb\"\r\nhello\r\n" + last, 400},
      {"ChunkExtensionBareCarriageReturn", chunked + "5;a\rb\r\nhello\r\n" + last, 400},
      {"ChunkExtensionTooLong", chunked + "5;" + repeated("a", 2000) + "\r\nhello\r\n" + last, 400},
      {"ChunkLongerThanItsSize", chunked + "4\r\nhello\r\n" + last, 400},
      {"ChunkShorterThanItsSize", chunked + "7\r\nhello\r\n" + last + smuggled, 400},
      {"ChunkEndsWithBareLineFeed", chunked + "5\r\nhello\n" + last, 400},
      {"ChunkEndsWithBareCarriageReturn", chunked + "5\r\nhello\r0\r\n\r\n", 400},
      {"LastChunkBareLineFeed", chunked + "0\n\n", 400},
      {"TrailerWithLength", chunked + "0\r\nContent-Length: 5\r\n\r\n", 400},
      {"TrailerWithCoding", chunked + "0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"TrailerWithHost", chunked + "0\r\nHost: evil\r\n\r\n", 400},
      {"TrailerWithoutColon", chunked + "0\r\nnonsense\r\n\r\n", 400},
      {"TrailerThatIsARequest", chunked + "0\r\n" + smuggled, 400},
      {"TrailerFolded", chunked + "0\r\nX: a\r\n b\r\n\r\n", 400},
      {"TrailersWithoutEnd", chunked + "0\r\n" + repeated("X: y\r\n", 40) + "\r\n", 400},
      {"BodyThatIsMostlyFraming", chunked + repeated("1;" + repeated("a", 900) + "\r\nx\r\n", 80) + last, 400},
      // the request line
      {"BareLineFeeds", "GET /a HTTP/1.1\nHost: a\n\n", 400},
      {"BareLineFeedAfterRequestLine", "GET /a HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"SpaceBeforeMethod", " GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"TwoSpacesAfterMethod", "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"TabAfterMethod", "GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"SpaceInTarget", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"SpaceAfterVersion", "GET /a HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
      {"NoVersion", "GET /a\r\nHost: a\r\n\r\n", 400},
      {"Version09", "GET /a HTTP/0.9\r\nHost: a\r\n\r\n", 505},
      {"Version12", "GET /a HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"Version20", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"VersionLowerCase", "GET /a http/1.1\r\nHost: a\r\n\r\n", 400},
      {"VersionLong", "GET /a HTTP/1.10\r\nHost: a\r\n\r\n", 400},
      {"VersionThatIsNone", "GET /a XTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"NulInTarget", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"s, 400},
      {"HighByteInTarget", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"FragmentInTarget", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"TargetWithoutSlash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"StarTargetOfGet", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"AuthorityTargetOfGet", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400},
      {"AbsoluteTargetOfAnotherHost", "GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"AbsoluteTargetWithUser", "GET http://u@a/a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"AbsoluteTargetOfAnotherScheme", "GET ftp://a/a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"Connect", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501},
      {"Trace", "TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"LowerCaseMethod", "get /a HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"MethodTooLong", repeated("A", 30) + " /a HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"MethodWithColon", "GE:T /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"TwoEmptyLinesFirst", "\r\n\r\n" + get + "\r\n", 400},
      {"TlsHello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s, 400},
      // header fields
      {"HostMissing", "GET /a HTTP/1.1\r\n\r\n", 400},
      {"HostMissingInHttp10", "GET /a HTTP/1.0\r\n\r\n", 400},
      {"HostTwice", "GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
      {"HostTwiceDifferent", "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"HostEmpty", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400},
      {"HostList", "GET /a HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
      {"HostWithPath", "GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"HostWithUser", "GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
      {"HostFolded", "GET /a HTTP/1.1\r\nHost:\r\n a\r\n\r\n", 400},
      {"FoldedHeader", get + "X: a\r\n b\r\n\r\n", 400},
      {"FoldedHeaderByTab", get + "X: a\r\n\tb\r\n\r\n", 400},
      {"FirstHeaderStartsWithSpace", "GET /a HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"SpaceBeforeColon", get + "X : a\r\n\r\n", 400},
      {"SpaceInName", get + "X Y: a\r\n\r\n", 400},
      {"HeaderWithoutColon", get + "nonsense\r\n\r\n", 400},
      {"HeaderWithoutName", get + ": a\r\n\r\n", 400},
      {"NulInName", get + "X\0: a\r\n\r\n"s, 400},
      {"HighByteInName", get + "X\xe4: a\r\n\r\n", 400},
      {"NulInValue", get + "X: a\0b\r\n\r\n"s, 400},
      {"BellInValue",
       get + "X: a\x07"
             "b\r\n\r\n",
       400},
      {"DeleteInValue",
       get + "X: a\x7f"
             "b\r\n\r\n",
       400},
      {"CarriageReturnInValue", get + "X: a\rb\r\n\r\n", 400},
      {"CarriageReturnBeforeEnd", get + "X: a\r\r\n\r\n", 400},
      {"ConnectionNamesHost", get + "Connection: host\r\n\r\n", 400},
      {"ConnectionNamesLength", post + "Content-Length: 5\r\nConnection: keep-alive, Content-Length\r\n\r\nhello", 400},
      {"ConnectionNamesCoding", post + "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + last,
       400},
      {"ConnectionMalformed", get + "Connection: a b c\r\n\r\n", 400},
      {"UpgradeWebSocket", get + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", 501},
      {"UpgradeHttp2", get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", 501},
      {"ExpectationUnknown", post + "Content-Length: 5\r\nExpect: 200-ok\r\n\r\nhello", 417},
      {"ExpectationTwice", post + "Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\nhello",
       417},
      {"ExpectationList", post + "Content-Length: 5\r\nExpect: 100-continue, x\r\n\r\nhello", 417},
      {"TargetTooLong", "GET /" + repeated("a", 9000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
      {"RequestLineWithoutEnd", "GET /" + repeated("a", 40'000), 414},
      {"HeadTooLong", get + "X: " + repeated("a", 40'000) + "\r\n\r\n", 431},
      {"TooManyHeaders", get + repeated("X: y\r\n", 200) + "\r\n", 431},
  };
}

}  // namespace zz::apps
