#pragma once
/// Measurements that are repeated.
#include <algorithm>
#include <cstddef>
#include <vector>

namespace cli {

/// A few measurements of one quantity.
class series {
public:
    void add(double value) {
        values_.push_back(value);
        std::ranges::sort(values_);
    }
    [[nodiscard]] bool empty() const { return values_.empty(); }
    [[nodiscard]] double median() const {
        const std::size_t n = values_.size();
        return n == 0 ? 0.0 : (values_[(n - 1) / 2] + values_[n / 2]) / 2.0;
    }
    [[nodiscard]] double lowest() const { return values_.empty() ? 0.0 : values_.front(); }
    [[nodiscard]] double highest() const { return values_.empty() ? 0.0 : values_.back(); }

private:
    std::vector<double> values_;
};

}  // namespace cli
