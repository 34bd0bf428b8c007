"""Any message that could have to leave, for property tests."""

from hypothesis import strategies as st

from apps.notifications.message import Item, Message

texts = st.text(max_size=4000)
messages = st.builds(
    Message,
    title=texts,
    body=texts,
    severity=st.sampled_from(["info", "warning", "error", "critical"]),
    status=st.sampled_from(["firing", "resolved", "test"]),
    url=st.just("https://portal.example/monitoring/alerts/"),
    facts=st.lists(st.tuples(texts, texts), max_size=12).map(tuple),
    alerts=st.lists(
        st.builds(Item, title=texts, status=st.just("firing"), severity=st.just("error"), text=texts), max_size=30
    ).map(tuple),
)
