#pragma once
/// How many drafts to read in a pass: decided by what passes of n tokens cost here, measured as it goes, and by the drafts' chances, corrected
/// by how drafts fared. Where drafts do not pay, none are read.
/// @since 0.2
#include <phi4flash/generate/drafter.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

PHI4FLASH_BEGIN

/// Best kept as long as a model and a workspace are: what passes cost is theirs. Its decisions depend on time; a text does so by rounding
/// of logits at most. For one thread at a time.
class draft_policy {
public:
    /// How many drafts to ask for, at most `most`: no more than could pay if all were right, none before it is known what a pass without
    /// any costs, and then not many more than were tried: 1, 3, 7, so that what few cost is known before many are read.
    [[nodiscard]] std::size_t ask(std::size_t most) const;

    /// How many of these drafts to read: those with which most tokens a second are expected.
    [[nodiscard]] std::size_t choose(std::span<const draft> drafts) const;

    /// A pass of one text's last token and `drafts` drafts took so many seconds.
    void took(std::size_t drafts, double seconds);

    /// Of `drafts` the first `accepted` were what was chosen, and those behind the next were not looked at.
    void fared(std::span<const draft> drafts, std::size_t accepted);

    /// What a pass of n tokens costs against a pass of one, as far as is known.
    [[nodiscard]] float cost(std::size_t n) const;

private:
    static constexpr float least_gain = 1.02f;
    static constexpr float fading = 0.99f;

    /// The mean of the last few. One pass that something else held up says little about the next.
    struct mean {
        float value = 0.0f;
        std::size_t seen = 0;
        void add(float x) {
            if (seen != 0) x = std::clamp(x, 0.5f * value, 1.5f * value);
            seen += seen < 16 ? 1 : 0;
            value += (x - value) / static_cast<float>(seen);
        }
    };

    /// What drafts may cost where none were measured: little, so that they are tried.
    [[nodiscard]] static float supposed(std::size_t drafts) { return drafts == 0 ? 1.0f : 1.05f + 0.06f * static_cast<float>(drafts); }

    [[nodiscard]] float chance_of(const draft& d, std::size_t place) const {
        if (!(d.chance >= 0.0f)) return chances_[place];
        return (std::min)(d.chance * std::clamp((hits_ + 10.0f) / (expected_ + 10.0f), 0.3f, 1.2f), 0.99f);
    }

    /// What was dear once is tried again now and then: it may have been the machine.
    void doubt();

    mean one_;                      // seconds of a pass of one token
    mean ratios_[max_drafts + 1];   // of a pass with n drafts to it
    std::size_t tried_ = 0;         // most drafts of a pass so far
    std::size_t passes_ = 0;
    float expected_ = 0.0f;         // of the drafts with a chance that were looked at lately
    float hits_ = 0.0f;
    // Of those without one, by their place.
    float chances_[max_drafts] = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f,
                                  0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f};
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY std::size_t draft_policy::ask(std::size_t most) const {
    if (one_.seen < 2) return 0;
    std::size_t n = (std::min)({most, max_drafts, 2 * tried_ + 1});
    while (n != 0 && static_cast<float>(1 + n) < least_gain * cost(1 + n)) --n;
    return n;
}

PHI4FLASH_BODY std::size_t draft_policy::choose(std::span<const draft> drafts) const {
    float reached = 1.0f;   // the chance that a draft and all before it are chosen
    float expected = 1.0f;  // tokens that the pass gives
    float best = least_gain;
    std::size_t n = 0;
    for (std::size_t i = 0; i < (std::min)(drafts.size(), max_drafts); ++i) {
        reached *= chance_of(drafts[i], i);
        expected += reached;
        const float gain = expected / cost(2 + i);
        if (gain > best) best = gain, n = i + 1;
    }
    return n;
}

PHI4FLASH_BODY void draft_policy::took(std::size_t drafts, double seconds) {
    if (drafts > max_drafts || !(seconds > 0.0) || (drafts != 0 && one_.seen == 0)) return;
    if (drafts == 0) {
        one_.add(static_cast<float>(seconds));
    } else {
        ratios_[drafts].add(static_cast<float>(seconds) / one_.value);
        tried_ = (std::max)(tried_, drafts);
    }
    if (++passes_ % 256 == 0) doubt();
}

PHI4FLASH_BODY void draft_policy::fared(std::span<const draft> drafts, std::size_t accepted) {
    for (std::size_t i = 0; i < (std::min)({drafts.size(), accepted + 1, max_drafts}); ++i) {
        const float hit = i < accepted ? 1.0f : 0.0f;
        if (drafts[i].chance >= 0.0f) {
            expected_ = expected_ * fading + (std::min)(drafts[i].chance, 1.0f);
            hits_ = hits_ * fading + hit;
        } else {
            chances_[i] += (hit - chances_[i]) / 16.0f;
        }
    }
}

PHI4FLASH_BODY float draft_policy::cost(std::size_t n) const {
    const std::size_t drafts = (std::min)(n == 0 ? 0 : n - 1, max_drafts);
    std::size_t below = drafts;
    while (below != 0 && ratios_[below].seen == 0) --below;
    const float low = below == 0 ? 1.0f : ratios_[below].value;
    if (below == drafts) return low;
    std::size_t above = drafts;
    while (above <= max_drafts && ratios_[above].seen == 0) ++above;
    if (above > max_drafts) return low + supposed(drafts) - supposed(below);
    const float part = static_cast<float>(drafts - below) / static_cast<float>(above - below);
    return low + part * (ratios_[above].value - low);
}

PHI4FLASH_BODY void draft_policy::doubt() {
    for (std::size_t n = 1; n <= max_drafts; ++n) {
        mean& m = ratios_[n];
        if (m.seen == 0 || m.value <= supposed(n)) continue;
        m.value += 0.1f * (supposed(n) - m.value);
        m.seen = 1;  // and the next measurement counts
    }
    for (float& c : chances_) c += 0.1f * (0.5f - c);
}
#endif

PHI4FLASH_END
