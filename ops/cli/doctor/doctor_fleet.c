/* doctor_fleet.c - a running fleet, by its router. */
#include "ops/cli/doctor/doctor.h"

static void run(bt_doctor *doctor)
{
    (void)doctor;
}

const bt_doctor_check bt_doctor_fleet = {"fleet", run};
