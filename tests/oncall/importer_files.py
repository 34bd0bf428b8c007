"""What OnCall's and Opsgenie's APIs answer, as their documentation shows it, cut to what a small team has."""

from typing import Any

ONCALL: dict[str, Any] = {
    "users": {
        "count": 2,
        "results": [
            {"id": "U1", "email": "ada@example.org", "username": "ada", "role": "admin", "teams": ["T1"]},
            {"id": "U2", "email": "bob@example.org", "username": "bob", "role": "user", "teams": []},
        ],
    },
    "teams": {"results": [{"id": "T1", "name": "Platform", "email": "", "avatar_url": "/avatar"}]},
    "on_call_shifts": {
        "results": [
            {
                "id": "O1", "name": "Weekly", "type": "rolling_users", "level": 0, "start": "2026-01-05T09:00:00",
                "time_zone": "Europe/Berlin", "duration": 604800, "frequency": "weekly", "interval": 1,
                "by_day": None, "week_start": "MO", "rolling_users": [["U1"], ["U2"]],
                "start_rotation_from_user_index": 0, "until": None, "rotation_start": "2026-01-05T09:00:00",
            },
            {
                "id": "O2", "name": "Office", "type": "recurrent_event", "level": 1, "start": "2026-01-05T09:00:00",
                "duration": 28800, "frequency": "weekly", "interval": 1, "users": ["U1"], "week_start": "MO",
                "by_day": ["MO", "TU", "WE", "TH", "FR"],
            },
            {
                "id": "O3", "name": "Party", "type": "override", "start": "2099-12-24T18:00:00", "duration": 43200,
                "users": ["U2"],
            },
        ]
    },
    "schedules": {
        "results": [
            {
                "id": "S1", "name": "Primary", "type": "calendar", "team_id": None, "time_zone": "Europe/Berlin",
                "shifts": ["O1", "O2", "O3"], "ical_url_overrides": None,
            }
        ]
    },
    "escalation_chains": {"results": [{"id": "F1", "name": "Standard", "team_id": None}]},
    "escalation_policies": {
        "results": [
            {"id": "E2", "escalation_chain_id": "F1", "position": 1, "type": "wait", "duration": 300},
            {
                "id": "E1", "escalation_chain_id": "F1", "position": 0, "type": "notify_on_call_from_schedule",
                "notify_on_call_from_schedule": "S1", "important": False,
            },
            {
                "id": "E3", "escalation_chain_id": "F1", "position": 2, "type": "notify_persons",
                "persons_to_notify": ["U1"], "important": True,
            },
            {
                "id": "E4", "escalation_chain_id": "F1", "position": 3, "type": "notify_person_next_each_time",
                "persons_to_notify_next_each_time": ["U1", "U2"],
            },
            {
                "id": "E5", "escalation_chain_id": "F1", "position": 4, "type": "notify_team_members",
                "notify_to_team_members": "T1",
            },
            {"id": "E6", "escalation_chain_id": "F1", "position": 5, "type": "resolve"},
            {"id": "E7", "escalation_chain_id": "F1", "position": 6, "type": "repeat_escalation"},
        ]
    },
    "integrations": {
        "results": [
            {
                "id": "I1", "name": "Alertmanager", "type": "alertmanager", "link": "https://oncall.example/secret/",
                "default_route": {"id": "R9", "escalation_chain_id": "F1"},
            }
        ]
    },
    "routes": {
        "results": [
            {
                "id": "R1", "integration_id": "I1", "escalation_chain_id": "F1", "routing_type": "jinja2",
                "routing_regex": '{{ payload.commonLabels.severity == "critical" }}', "position": 0,
                "is_the_last_route": False,
            },
            {
                "id": "R2", "integration_id": "I1", "escalation_chain_id": "F1", "routing_type": "regex",
                "routing_regex": "us-(east|west)", "position": 1, "is_the_last_route": False,
            },
        ]
    },
    "personal_notification_rules": {
        "results": [
            {"id": "N1", "user_id": "U1", "position": 0, "important": False, "type": "notify_by_email"},
            {"id": "N2", "user_id": "U2", "position": 0, "important": True, "type": "notify_by_phone_call"},
        ]
    },
}  # fmt: skip

OPSGENIE: dict[str, list[dict[str, Any]]] = {
    "users": [
        {
            "id": "u-1", "username": "ada@example.org", "fullName": "Ada", "role": {"name": "Owner"},
            "userContacts": [
                {"id": "c-1", "to": "ada@example.org", "contactMethod": "email", "enabled": True},
                {"id": "c-2", "to": "1-5551234", "contactMethod": "voice", "enabled": True},
            ],
        },
        {"id": "u-2", "username": "bob@example.org", "fullName": "Bob", "role": {"name": "User"}},
    ],
    "teams": [
        {
            "id": "t-1", "name": "Platform", "description": "Runs the platform",
            "members": [{"user": {"id": "u-1", "username": "ada@example.org"}, "role": "admin"}],
            "routingRules": [
                {
                    "id": "r-1", "name": "Critical", "order": 0,
                    "criteria": {
                        "type": "match-all-conditions",
                        "conditions": [
                            {"field": "priority", "not": False, "operation": "equals", "expectedValue": "P1"}
                        ],
                    },
                    "notify": {"type": "escalation", "name": "Platform_escalation", "id": "e-1"},
                },
                {
                    "id": "r-2", "name": "Default Routing Rule", "order": 1, "criteria": {"type": "match-all"},
                    "notify": {"type": "schedule", "name": "Primary", "id": "s-1"},
                },
            ],
        }
    ],
    "schedules": [
        {
            "id": "s-1", "name": "Primary", "timezone": "Europe/Berlin", "enabled": True,
            "rotations": [
                {
                    "id": "x-1", "name": "Rot1", "startDate": "2026-01-05T07:00:00Z", "type": "weekly", "length": 1,
                    "participants": [
                        {"type": "user", "id": "u-1", "username": "ada@example.org"},
                        {"type": "user", "id": "u-2", "username": "bob@example.org"},
                    ],
                    "timeRestriction": {
                        "type": "time-of-day",
                        "restriction": {"startHour": 8, "startMin": 0, "endHour": 20, "endMin": 0},
                    },
                }
            ],
        }
    ],
    "escalations": [
        {
            "id": "e-1", "name": "Platform_escalation", "description": "",
            "rules": [
                {
                    "condition": "if-not-acked", "notifyType": "default",
                    "delay": {"timeAmount": 10, "timeUnit": "minutes"},
                    "recipient": {"type": "user", "id": "u-2", "username": "bob@example.org"},
                },
                {
                    "condition": "if-not-acked", "notifyType": "default",
                    "delay": {"timeAmount": 0, "timeUnit": "minutes"},
                    "recipient": {"type": "schedule", "id": "s-1", "name": "Primary"},
                },
            ],
            "repeat": {"waitInterval": 20, "count": 2, "resetRecipientStates": False, "closeAlertAfterAll": False},
        }
    ],
}  # fmt: skip
