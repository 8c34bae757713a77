// SPDX-License-Identifier: Apache-2.0
#include "capture/netlink_reply.hpp"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <linux/genetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

namespace blkferry::capture::netlink {

namespace {

constexpr int errno_max = 4095;  // what the kernel may put into a pointer

/// Reads required attributes of one message and remembers the first that is missing or has the wrong size.
class AttrReader {
public:
    explicit AttrReader(const Attrs& attrs) noexcept : attrs_(attrs) {}

    std::uint32_t u32(blkferry_attr a) { return fixed<std::uint32_t>(a); }
    std::uint64_t u64(blkferry_attr a) { return fixed<std::uint64_t>(a); }
    Uuid id(blkferry_attr a) { return fixed<Uuid>(a); }
    std::string string(blkferry_attr a) {
        const nlattr* p = attrs_[a];
        const auto n = p == nullptr ? 0 : nla_len(p);
        const auto* text = p == nullptr ? nullptr : static_cast<const char*>(nla_data(p));
        if (n <= 0 || text[n - 1] != '\0') {
            note(a);
            return {};
        }
        return {text, ::strnlen(text, static_cast<std::size_t>(n))};
    }
    std::vector<std::uint64_t> u64s(blkferry_attr a) {
        const nlattr* p = attrs_[a];
        if (p == nullptr || nla_len(p) % 8 != 0 || nla_len(p) > 64 * 8) {
            note(a);
            return {};
        }
        std::vector<std::uint64_t> out(static_cast<std::size_t>(nla_len(p)) / 8);
        if (!out.empty())
            std::memcpy(out.data(), nla_data(p), out.size() * 8);
        return out;
    }
    /// The histograms, or none if the message has none.
    std::vector<LatencySet> latency() {
        const nlattr* p = attrs_[BLKFERRY_A_LATENCY];
        if (p == nullptr)
            return {};
        const std::uint64_t ticks = u64(BLKFERRY_A_TICKS);
        const std::uint64_t ns = u64(BLKFERRY_A_TICKS_NS);
        auto sets = parse_latency({static_cast<const std::byte*>(nla_data(p)), static_cast<std::size_t>(nla_len(p))}, ticks, ns);
        if (!sets) {
            note(BLKFERRY_A_LATENCY);
            return {};
        }
        return std::move(*sets);
    }
    DiskState state(blkferry_attr a) {
        const std::uint32_t v = u32(a);
        if (v > BLKFERRY_RING)
            note(a);
        return static_cast<DiskState>(v);
    }
    [[nodiscard]] Result<void> done(std::string_view what) const {
        if (bad_ == 0)
            return {};
        return fail(Errc::corrupt, fmt::format("{}: attribute {} of the module's answer is missing or malformed", what, bad_));
    }

private:
    template <class T>
    T fixed(blkferry_attr a) {
        T v{};
        if (attrs_[a] == nullptr || nla_len(attrs_[a]) != static_cast<int>(sizeof(T)))
            note(a);
        else
            std::memcpy(&v, nla_data(attrs_[a]), sizeof(T));
        return v;
    }
    void note(blkferry_attr a) noexcept {
        if (bad_ == 0)
            bad_ = static_cast<int>(a);
    }
    const Attrs& attrs_;
    int bad_ = 0;
};

}  // namespace

Messages::Messages(std::span<std::byte> bytes) noexcept
    : at_(static_cast<nlmsghdr*>(static_cast<void*>(bytes.data()))), left_(static_cast<int>(bytes.size())) {}

nlmsghdr* Messages::next() noexcept {
    if (nlmsg_ok(at_, left_) == 0)
        return nullptr;
    nlmsghdr* message = at_;
    at_ = nlmsg_next(at_, &left_);
    return message;
}

bool parse_attrs(nlmsghdr* message, Attrs& attrs) {
    return nlmsg_datalen(message) >= static_cast<int>(sizeof(genlmsghdr)) &&
           nlmsg_parse(message, sizeof(genlmsghdr), attrs.data(), BLKFERRY_A_MAX, nullptr) == 0;
}

Outcome read_outcome(nlmsghdr* h) {
    Outcome out;
    const auto len = static_cast<std::size_t>(nlmsg_datalen(h));
    if (len < sizeof(int)) {
        out.err = h->nlmsg_type == NLMSG_ERROR ? EPROTO : 0;
        return out;
    }
    int code = 0;
    std::memcpy(&code, nlmsg_data(h), sizeof(code));
    if (code < -errno_max)
        code = -EPROTO;
    out.err = code < 0 ? -code : 0;
    std::size_t skip = sizeof(int);
    if (h->nlmsg_type == NLMSG_ERROR) {
        nlmsgerr e{};
        if (len < sizeof(e))
            return out;
        std::memcpy(&e, nlmsg_data(h), sizeof(e));
        skip = sizeof(e);
        if ((h->nlmsg_flags & NLM_F_CAPPED) == 0 && e.msg.nlmsg_len >= sizeof(nlmsghdr))
            skip += (e.msg.nlmsg_len - sizeof(nlmsghdr) + 3) & ~std::size_t{3};
    }
    if ((h->nlmsg_flags & NLM_F_ACK_TLVS) == 0 || skip >= len)
        return out;
    auto* head = static_cast<nlattr*>(static_cast<void*>(static_cast<char*>(nlmsg_data(h)) + skip));
    const nlattr* msg = nla_find(head, static_cast<int>(len - skip), NLMSGERR_ATTR_MSG);
    if (msg != nullptr && nla_len(msg) > 0)
        out.text.assign(static_cast<const char*>(nla_data(msg)),
                        ::strnlen(static_cast<const char*>(nla_data(msg)), static_cast<std::size_t>(nla_len(msg))));
    return out;
}

Result<TrackerInfo> parse_info(const Attrs& attrs) {
    AttrReader r(attrs);
    TrackerInfo info;
    info.abi = r.u32(BLKFERRY_A_ABI);
    info.version = r.string(BLKFERRY_A_VERSION);
    info.load_id = r.id(BLKFERRY_A_LOAD_ID);
    info.seq = r.u64(BLKFERRY_A_SEQ);
    info.void_seq = r.u64(BLKFERRY_A_VOID_SEQ);
    info.inflight = r.u32(BLKFERRY_A_INFLIGHT);
    info.latency = r.latency();
    BLKFERRY_TRY(r.done("ask the module"));
    return info;
}

Result<DiskInfo> parse_disk(const Attrs& attrs) {
    AttrReader r(attrs);
    DiskInfo d;
    d.disk = r.u32(BLKFERRY_A_DISK);
    d.dev = r.u64(BLKFERRY_A_DEV);
    d.name = r.string(BLKFERRY_A_NAME);
    d.data_bytes = r.u64(BLKFERRY_A_DATA_BYTES);
    d.descs = r.u32(BLKFERRY_A_DESCS);
    d.inline_max = r.u32(BLKFERRY_A_INLINE_MAX);
    d.state = r.state(BLKFERRY_A_STATE);
    d.flags = r.u32(BLKFERRY_A_FLAGS);
    d.sectors = r.u64(BLKFERRY_A_SECTORS);
    d.block_shift = r.u32(BLKFERRY_A_BLOCK_SHIFT);
    d.attach_id = r.id(BLKFERRY_A_ATTACH_ID);
    d.gap_seq = r.u64(BLKFERRY_A_GAP_SEQ);
    d.close_seq = r.u64(BLKFERRY_A_CLOSE_SEQ);
    d.epoch_seq = r.u64(BLKFERRY_A_EPOCH_SEQ);
    d.active_blocks = r.u64(BLKFERRY_A_ACTIVE_BLOCKS);
    d.snap_blocks = r.u64(BLKFERRY_A_SNAP_BLOCKS);
    d.memory = r.u64(BLKFERRY_A_MEMORY);
    d.counters = r.u64s(BLKFERRY_A_COUNTERS);
    if (attrs[BLKFERRY_A_WRITES] != nullptr)
        d.writes = r.u32(BLKFERRY_A_WRITES);
    d.latency = r.latency();
    BLKFERRY_TRY(r.done("disk"));
    return d;
}

Result<TrackerEvent> parse_event(const Attrs& attrs) {
    AttrReader r(attrs);
    TrackerEvent e;
    e.disk = r.u32(BLKFERRY_A_DISK);
    e.kind = r.u32(BLKFERRY_A_EVENT);
    e.state = r.state(BLKFERRY_A_STATE);
    e.flags = r.u32(BLKFERRY_A_FLAGS);
    e.seq = r.u64(BLKFERRY_A_SEQ);
    BLKFERRY_TRY(r.done("event"));
    return e;
}

Result<std::uint64_t> parse_u64(const Attrs& attrs, blkferry_attr attr, std::string_view what) {
    AttrReader r(attrs);
    const std::uint64_t value = r.u64(attr);
    BLKFERRY_TRY(r.done(what));
    return value;
}

}  // namespace blkferry::capture::netlink
