// Works without it: it only leaves empty fields of the form out of the address.
"use strict";
for (const form of document.querySelectorAll("form.filter")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) {
      if (field.name && !field.value) field.disabled = true;
    }
  });
}
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form.filter [name]")) field.disabled = false;
});
