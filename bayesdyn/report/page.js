// Draws the page's figures with Plotly in the page's colours, when they come into view; one choice of model and one slider per
// section move them. A colour is a variable of the page's style, where /40 after its name gives it 40 % opacity.
(() => {
  "use strict";
  const LETTER = 6.8; // pixels, about, of a letter of a title
  const coarse = matchMedia("(pointer: coarse)").matches;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll("script[data-plot]")].map((script) => {
    const place = document.getElementById(script.dataset.plot);
    const box = place.closest("figure");
    return { place, box, spec: JSON.parse(script.textContent), frame: null, seen: false, stale: true };
  });
  const choices = [...document.querySelectorAll(".chooser input")].map((input) => input.value).filter(Boolean);
  let choice = choices.length === 1 ? choices[0] : "";

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const colour = (text) => {
    const match = /^var\(--([\w-]+)(?:\/(\d+))?\)$/.exec(text);
    if (!match) return text;
    const hex = variable(match[1]);
    if (match[2] === undefined) return hex;
    const channels = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
    return `rgba(${channels.join(",")},${Number(match[2]) / 100})`;
  };
  const coloured = (value) => {
    if (typeof value === "string") return value.startsWith("var(") ? colour(value) : value;
    if (Array.isArray(value)) return value.some((each) => typeof each !== "number") ? value.map(coloured) : value;
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each)]));
  };

  const visible = (trace) => {
    if (trace.meta === "alone") return choice === trace.legendgroup;
    return !choice || !choices.includes(trace.legendgroup) || trace.legendgroup === choice;
  };
  // Plotly cuts titles that are too long for a narrow screen.
  const wrapped = (text, pixels) => {
    const lines = [""];
    text.split(" ").forEach((word) => {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (longer.length * LETTER <= pixels || !lines.at(-1)) lines[lines.length - 1] = longer;
      else lines.push(word);
    });
    return lines.join("<br>");
  };
  const axis = (own, width) => {
    const text = own.title ? wrapped(own.title.text, width) : "";
    const title = text ? { text, standoff: 8, font: { size: 12, color: variable("muted") } } : undefined;
    const lines = { gridcolor: variable("grid"), zerolinecolor: variable("grid"), linecolor: variable("muted") };
    return { ...lines, automargin: true, tickfont: { size: 11, color: variable("muted") }, ...coloured(own), title };
  };
  const layout = (own, frame, width) => {
    const note = frame && frame.note ? ` · ${frame.note}` : "";
    const text = wrapped(own.title.text + note, width);
    const title = { text, x: 0, xref: "container", y: 0.985, yanchor: "top", xanchor: "left" };
    const yaxis = axis(frame && frame.range ? { ...own.yaxis, range: frame.range } : own.yaxis, width);
    return {
      ...coloured(own),
      title: { ...title, font: { size: 13, color: variable("ink") } },
      font: { family: getComputedStyle(document.body).fontFamily, color: variable("ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 46, r: 22, t: text ? 34 + 17 * (text.split("<br>").length - 1) : 10, b: 44 },
      showlegend: false,
      hovermode: "closest",
      // On a touch screen a finger on a figure has to scroll the page.
      dragmode: coarse ? false : "zoom",
      hoverlabel: { bgcolor: variable("paper"), bordercolor: variable("muted"), font: { color: variable("ink"), size: 12 } },
      // Names of categories take up to a third on the left, and a title is centred on what remains.
      xaxis: axis(own.xaxis, (own.yaxis.type === "category" ? 0.42 : 0.8) * width),
      yaxis,
    };
  };

  // A frame has new values for the traces that it moves, and null for the others.
  const moved = (trace, frame, k) => {
    const changes = ["x", "y"].filter((axis) => frame && frame[axis] && frame[axis][k]).map((axis) => [axis, frame[axis][k]]);
    return { ...trace, ...Object.fromEntries(changes) };
  };
  const draw = (figure) => {
    const { spec, place, frame } = figure;
    const data = spec.data.map((trace, k) => ({ ...coloured(moved(trace, frame, k)), visible: visible(trace) }));
    figure.stale = false;
    Plotly.react(place, data, layout(spec.layout, frame, place.clientWidth), { displayModeBar: false, responsive: true, doubleClick: "reset" });
    place.dataset.drawn = String(Number(place.dataset.drawn || 0) + 1);
  };
  const refresh = (some) => some.forEach((figure) => (figure.seen ? draw(figure) : (figure.stale = true)));
  const watcher = new IntersectionObserver(
    (entries) =>
      entries.forEach((entry) => {
        const figure = figures.find((each) => each.place === entry.target);
        figure.seen = entry.isIntersecting;
        if (figure.seen && figure.stale) draw(figure);
      }),
    { rootMargin: "400px" },
  );

  const choose = (name) => {
    choice = name;
    figures.forEach(({ box }) => (box.hidden = Boolean(name && box.dataset.owner && box.dataset.owner !== name)));
    refresh(figures);
  };
  document.querySelectorAll(".chooser input").forEach((input) => {
    input.checked = input.value === choice;
    input.addEventListener("change", () => choose(input.value));
  });

  document.querySelectorAll(".slider").forEach((slider) => {
    const [range, output] = [slider.querySelector("input"), slider.querySelector("output")];
    const select = slider.querySelector("select");
    const labels = JSON.parse(slider.dataset.labels);
    const inside = figures.filter(({ box }) => slider.closest("section").contains(box));
    const move = () => {
      const place = Number(range.value) + (select ? Number(select.value) * labels.length : 0);
      output.textContent = labels[Number(range.value)];
      inside.forEach((figure) => (figure.frame = figure.spec.frames[place] || null));
      refresh(inside);
    };
    range.addEventListener("input", move);
    if (select) select.addEventListener("change", move);
    move();
  });

  const table = ({ spec, frame }) => {
    const cell = (value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
    const lines = [["trace", "x", "y", "z", "minus", "plus"]];
    spec.data.forEach((plain, k) => {
      if (plain.meta === "mark") return; // at the edge of the picture, not where the number is
      const trace = moved(plain, frame, k);
      const y = trace.y;
      const name = trace.name || trace.legendgroup || "";
      if (trace.z) trace.z.forEach((row, j) => row.forEach((z, i) => z !== null && lines.push([name, trace.x[i], y[j], z, "", ""])));
      else trace.x.forEach((x, i) => {
        const bar = trace.error_x || {};
        lines.push([name, x, y[i], "", (bar.arrayminus || bar.array || [])[i], (bar.array || [])[i]]);
      });
    });
    return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
  };
  document.querySelectorAll("button.csv").forEach((button) => {
    const figure = figures.find(({ box }) => box === button.closest("figure"));
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([table(figure)], { type: "text/csv" }));
      link.download = `${figure.place.id}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  });

  // A table that is wider than its place says so, and fades where it goes on.
  const edge = (box) => {
    box.closest(".frame").classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    box.closest(".table").querySelector(".hint").hidden = box.scrollWidth <= box.clientWidth + 1;
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => edge(entry.target)));
  document.querySelectorAll(".sideways").forEach((box) => {
    box.addEventListener("scroll", () => edge(box), { passive: true });
    sizes.observe(box);
  });

  dark.addEventListener("change", () => refresh(figures));
  addEventListener("beforeprint", () => figures.filter(({ box, stale }) => stale && !box.hidden).forEach(draw));
  choose(choice);
  figures.forEach(({ place }) => watcher.observe(place));
})();
