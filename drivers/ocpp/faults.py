"""What a charger's error code means to a technician: one sentence and one action (OCPP 1.6 §7.6)."""

FAULTS = {
    "ConnectorLockFailure": "cannot lock or unlock its plug. Look for a jammed plug or a worn lock.",
    "EVCommunicationError": "cannot talk to the car. Try another cable, then another car.",
    "GroundFailure": "has tripped on a ground fault. Have cable and car checked before it is used again.",
    "HighTemperature": "is too hot. Clear its air inlets; check its terminals for loose screws.",
    "InternalError": "reports an error inside. Restart it; if it comes back, call the maker.",
    "LocalListConflict": "keeps a list of tags that differs from ours. Send it the list again.",
    "OtherError": "reports a fault that it does not name. Look at its display or its log.",
    "OverCurrentFailure": "has switched off because a car drew too much. Check its fuse, then try another car.",
    "OverVoltage": "measures too high a voltage. Have the supply checked.",
    "PowerMeterFailure": "cannot read its own meter: sessions have no energy. Check the meter and its wiring.",
    "PowerSwitchFailure": "has a contactor that does not switch. Take it out of use and have it replaced.",
    "ReaderFailure": "cannot read cards. Check the card reader.",
    "ResetFailure": "could not restart itself. Switch its supply off and on.",
    "UnderVoltage": "measures too low a voltage. Have the supply checked.",
    "WeakSignal": "has a weak radio signal. Turn or move its antenna.",
}
