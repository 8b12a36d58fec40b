#pragma once
// What unit.cpp, compiled in many ways, tells mixed_units.cpp.

struct unit_report {
    const char* abi;   // name of the ABI namespace
    char wrong[512];   // what was wrong, or empty
};
