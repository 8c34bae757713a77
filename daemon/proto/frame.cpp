// SPDX-License-Identifier: Apache-2.0
#include "proto/frame.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/hash.hpp"

namespace blkferry::proto {

namespace {
constexpr std::uint32_t magic = 0x31524642;  // "BFR1"
}

std::string_view to_string(FrameType type) noexcept {
    switch (type) {
        case FrameType::hello: return "HELLO";
        case FrameType::welcome: return "WELCOME";
        case FrameType::batch_begin: return "BATCH_BEGIN";
        case FrameType::extents: return "EXTENTS";
        case FrameType::epoch_begin: return "EPOCH_BEGIN";
        case FrameType::epoch_end: return "EPOCH_END";
        case FrameType::point_request: return "POINT_REQUEST";
        case FrameType::batch_end: return "BATCH_END";
        case FrameType::ack: return "ACK";
        case FrameType::epoch_result: return "EPOCH_RESULT";
        case FrameType::point_result: return "POINT_RESULT";
        case FrameType::hash_ask: return "HASH_ASK";
        case FrameType::hash_reply: return "HASH_REPLY";
        case FrameType::heartbeat: return "HEARTBEAT";
        case FrameType::error: return "ERROR";
        case FrameType::cert_request: return "CERT_REQUEST";
        case FrameType::cert_reply: return "CERT_REPLY";
        case FrameType::retire: return "RETIRE";
    }
    return "UNKNOWN";
}

std::size_t body_bytes_max(FrameType type) noexcept {
    switch (type) {
        case FrameType::hello:
        case FrameType::welcome:
        case FrameType::heartbeat:
        case FrameType::error:
        case FrameType::cert_request:
        case FrameType::cert_reply:
        case FrameType::retire: return json_body_bytes_max;
        case FrameType::batch_begin:
        case FrameType::extents:
        case FrameType::epoch_begin:
        case FrameType::epoch_end:
        case FrameType::point_request:
        case FrameType::batch_end:
        case FrameType::ack:
        case FrameType::epoch_result:
        case FrameType::point_result:
        case FrameType::hash_ask:
        case FrameType::hash_reply: return frame_body_bytes_max;
    }
    return 0;
}

bool is_batch_frame(FrameType type) noexcept {
    return type >= FrameType::batch_begin && type <= FrameType::batch_end;
}

HeaderBytes encode_header(const FrameHeader& h) noexcept {
    HeaderBytes raw{};
    store_le<std::uint32_t>(raw.data(), magic);
    raw[4] = std::byte{protocol_version};
    raw[5] = static_cast<std::byte>(h.type);
    raw[6] = static_cast<std::byte>(h.codec);
    store_le<std::uint32_t>(raw.data() + 8, h.wire_len);
    store_le<std::uint32_t>(raw.data() + 12, h.raw_len);
    store_le<std::uint64_t>(raw.data() + 16, h.batch);
    store_le<std::uint32_t>(raw.data() + 24, h.index);
    store_le<std::uint64_t>(raw.data() + 32, h.body_xxh3);
    store_le<std::uint32_t>(raw.data() + 44, crc32c(std::span(raw).first(44)));
    return raw;
}

Result<FrameHeader> decode_header(std::span<const std::byte, frame_header_bytes> raw) {
    if (load_le<std::uint32_t>(raw.data()) != magic)
        return fail(Errc::corrupt, "frame refused: wrong magic number, the peer does not speak blkferry's protocol");
    if (load_le<std::uint32_t>(raw.data() + 44) != crc32c(raw.first(44)))
        return fail(Errc::corrupt, "frame refused: header checksum is wrong");
    const auto version = std::to_integer<unsigned>(raw[4]);
    if (version != protocol_version)
        return fail(Errc::unsupported,
                    fmt::format("frame refused: protocol version {}, this end speaks {}", version, protocol_version));
    const auto type = std::to_integer<unsigned>(raw[5]);
    if (type < static_cast<unsigned>(FrameType::hello) || type > static_cast<unsigned>(FrameType::retire))
        return fail(Errc::invalid, fmt::format("frame refused: unknown type {}", type));
    const auto codec = std::to_integer<unsigned>(raw[6]);
    if (codec > static_cast<unsigned>(Codec::zstd))
        return fail(Errc::invalid, fmt::format("frame refused: unknown compression {}", codec));
    if (raw[7] != std::byte{0} || load_le<std::uint32_t>(raw.data() + 28) != 0 ||
        load_le<std::uint32_t>(raw.data() + 40) != 0)
        return fail(Errc::invalid, "frame refused: reserved header fields are not zero");
    FrameHeader h;
    h.type = static_cast<FrameType>(type);
    h.codec = static_cast<Codec>(codec);
    h.wire_len = load_le<std::uint32_t>(raw.data() + 8);
    h.raw_len = load_le<std::uint32_t>(raw.data() + 12);
    h.batch = load_le<std::uint64_t>(raw.data() + 16);
    h.index = load_le<std::uint32_t>(raw.data() + 24);
    h.body_xxh3 = load_le<std::uint64_t>(raw.data() + 32);
    const std::size_t allowed = body_bytes_max(h.type);
    if (h.wire_len > allowed || h.raw_len > allowed)
        return fail(Errc::invalid, fmt::format("frame refused: {} body of {} bytes ({} on the wire), {} allowed",
                                               to_string(h.type), h.raw_len, h.wire_len, allowed));
    if (h.codec == Codec::none ? h.wire_len != h.raw_len : h.wire_len >= h.raw_len)
        return fail(Errc::invalid, "frame refused: body lengths contradict the compression");
    if (is_batch_frame(h.type) ? h.batch == 0 : (h.batch != 0 || h.index != 0))
        return fail(Errc::invalid, fmt::format("frame refused: {} with batch {}", to_string(h.type), h.batch));
    return h;
}

void encode_frame(FrameType type, std::uint64_t batch, std::uint32_t index, std::span<const std::byte> raw,
                  Compressor* compressor, std::vector<std::byte>& out) {
    BLKFERRY_ASSERT(raw.size() <= frame_body_bytes_max);
    FrameHeader h;
    h.type = type;
    h.batch = batch;
    h.index = index;
    h.raw_len = static_cast<std::uint32_t>(raw.size());
    h.body_xxh3 = xxh3(raw);
    const std::size_t at = out.size();
    out.resize(at + frame_header_bytes);
    if (compressor != nullptr && compressor->compress(raw, out))
        h.codec = compressor->codec();
    else
        out.insert(out.end(), raw.begin(), raw.end());
    h.wire_len = static_cast<std::uint32_t>(out.size() - at - frame_header_bytes);
    std::ranges::copy(encode_header(h), out.begin() + static_cast<std::ptrdiff_t>(at));
}

Result<void> verify_body(const FrameHeader& header, std::span<const std::byte> raw) {
    if (raw.size() != header.raw_len)
        return fail(Errc::corrupt, "frame refused: body is shorter than its header says");
    if (xxh3(raw) != header.body_xxh3)
        return fail(Errc::corrupt, fmt::format("frame refused: {} body checksum is wrong", to_string(header.type)));
    return {};
}

Result<void> decode_body_into(const FrameHeader& header, std::span<const std::byte> wire, Decompressor& decompressor,
                              std::span<std::byte> raw) {
    BLKFERRY_ASSERT(header.codec != Codec::none && raw.size() == header.raw_len);
    if (wire.size() != header.wire_len)
        return fail(Errc::corrupt, "frame refused: body is shorter than its header says");
    if (auto r = decompressor.decompress(header.codec, wire, raw); !r)
        return std::unexpected(std::move(r).error().with("frame refused"));
    return verify_body(header, raw);
}

Result<std::span<const std::byte>> decode_body(const FrameHeader& header, std::span<const std::byte> wire,
                                               Decompressor& decompressor, std::vector<std::byte>& scratch) {
    if (header.codec == Codec::none) {
        BLKFERRY_TRY(verify_body(header, wire));
        return wire;
    }
    scratch.resize(header.raw_len);
    BLKFERRY_TRY(decode_body_into(header, wire, decompressor, scratch));
    return scratch;
}

void FrameReader::feed(std::span<const std::byte> data) {
    if (at_ > 0) {
        buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(at_));
        at_ = 0;
    }
    buffer_.insert(buffer_.end(), data.begin(), data.end());
}

Result<FrameReader::Status> FrameReader::next(View& view) {
    const auto rest = std::span<const std::byte>(buffer_).subspan(at_);
    if (rest.size() < frame_header_bytes)
        return Status::need_more;
    BLKFERRY_TRY_ASSIGN(view.header, decode_header(rest.first<frame_header_bytes>()));
    const std::size_t whole = frame_header_bytes + view.header.wire_len;
    if (rest.size() < whole)
        return Status::need_more;
    view.whole = rest.first(whole);
    view.wire = view.whole.subspan(frame_header_bytes);
    at_ += whole;
    return Status::frame;
}

}  // namespace blkferry::proto
