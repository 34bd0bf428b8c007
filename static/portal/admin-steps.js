// The steps of a policy in the admin: each shows the settings of its chosen kind only.

function show(select) {
  const [prefix] = select.name.split("-kind");
  const form = select.closest("form");
  const hidden = new Map();
  for (const field of form.querySelectorAll(`[name^="${prefix}-"][name*="__"]`)) {
    const [kind] = field.name.slice(prefix.length + 1).split("__");
    const row = field.closest(".field-row");
    if (row) hidden.set(row, kind !== select.value);
  }
  for (const [row, isHidden] of hidden) row.hidden = isHidden;
}

const kinds = () => document.querySelectorAll('select[name^="steps-"][name$="-kind"]');

document.addEventListener("change", (event) => {
  if (event.target.matches('select[name^="steps-"][name$="-kind"]')) show(event.target);
});
document.addEventListener("formset:added", () => kinds().forEach(show));
document.addEventListener("DOMContentLoaded", () => kinds().forEach(show));
