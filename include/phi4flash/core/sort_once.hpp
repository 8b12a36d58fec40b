#pragma once
/// Sorting of what is sorted once, when something is opened or written: names, tensors, keys.
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <functional>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

/// std::sort's promise with a seventh of its code: std::sort is some twenty functions for every type and order, a heap three. What is sorted
/// often, or is large, has std::sort.
template <class T, class Less = std::less<>>
void sort_once(std::vector<T>& values, Less less = {}) {
    std::make_heap(values.begin(), values.end(), less);
    std::sort_heap(values.begin(), values.end(), less);
}

}  // namespace detail

PHI4FLASH_END
