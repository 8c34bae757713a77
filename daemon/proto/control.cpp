// SPDX-License-Identifier: Apache-2.0
#include "proto/control.hpp"

#include "base/bytes.hpp"
#include "proto/batch.hpp"

namespace blkferry::proto {

namespace {
std::string text_of(std::span<const std::byte> raw) {
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
}
}  // namespace

void encode(const Ack& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.batch);
    w.put(m.mark);
    w.put(m.window_bytes);
}

Result<Ack> decode_ack(std::span<const std::byte> body) {
    ByteReader in(body);
    Ack m;
    m.batch = in.get<std::uint64_t>();
    m.mark = in.get<std::uint64_t>();
    m.window_bytes = in.get<std::uint64_t>();
    if (!in.done())
        return fail(Errc::invalid, "ACK refused: wrong length");
    return m;
}

void encode(const EpochResult& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    const std::string text = m.text.substr(0, text_bytes_max);
    w.put(m.slot);
    w.put<std::uint8_t>(m.ok ? 1 : 0);
    w.put<std::uint8_t>(0);
    w.put(static_cast<std::uint32_t>(text.size()));
    w.put(m.seq0);
    w.bytes(std::as_bytes(std::span(text)));
}

Result<EpochResult> decode_epoch_result(std::span<const std::byte> body) {
    ByteReader in(body);
    EpochResult m;
    m.slot = in.get<std::uint16_t>();
    const auto ok = in.get<std::uint8_t>();
    const auto pad = in.get<std::uint8_t>();
    const auto length = in.get<std::uint32_t>();
    m.seq0 = in.get<std::uint64_t>();
    if (!in.ok() || ok > 1 || pad != 0 || m.slot >= disks_max || length > text_bytes_max)
        return fail(Errc::invalid, "EPOCH_RESULT refused: a field is out of range");
    m.ok = ok == 1;
    m.text = text_of(in.bytes(length));
    if (!in.done())
        return fail(Errc::invalid, "EPOCH_RESULT refused: wrong length");
    return m;
}

void encode(const PointResult& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    const std::string text = m.text.substr(0, text_bytes_max);
    w.put(m.request);
    w.put(m.mark);
    w.put<std::uint8_t>(m.ok ? 1 : 0);
    w.put(static_cast<std::uint8_t>(m.name.size()));
    w.put(static_cast<std::uint16_t>(text.size()));
    w.bytes(std::as_bytes(std::span(m.name)));
    w.bytes(std::as_bytes(std::span(text)));
}

Result<PointResult> decode_point_result(std::span<const std::byte> body) {
    ByteReader in(body);
    PointResult m;
    m.request = in.get<std::uint64_t>();
    m.mark = in.get<std::uint64_t>();
    const auto ok = in.get<std::uint8_t>();
    const auto name_length = in.get<std::uint8_t>();
    const auto text_length = in.get<std::uint16_t>();
    if (!in.ok() || ok > 1 || name_length > name_bytes_max || text_length > text_bytes_max)
        return fail(Errc::invalid, "POINT_RESULT refused: a field is out of range");
    m.ok = ok == 1;
    m.name = text_of(in.bytes(name_length));
    m.text = text_of(in.bytes(text_length));
    if (!in.done() || (!m.name.empty() && !valid_name(m.name)))
        return fail(Errc::invalid, "POINT_RESULT refused: wrong length or name");
    return m;
}

}  // namespace blkferry::proto
