// Puts Highway's toggles in step before a target is compiled: "the operations of this target are not there yet". Its headers compare
// them instead of having include guards.
#undef HWY_TARGET_TOGGLE
#undef HWY_SET_MACROS_PER_TARGET
#ifdef HWY_HIGHWAY_PER_TARGET
#define HWY_TARGET_TOGGLE
#define HWY_SET_MACROS_PER_TARGET
#endif
