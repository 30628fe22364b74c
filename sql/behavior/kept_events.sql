-- The events of the whole history but those of the pairs of users and items that a window holds out.
SELECT events.*
FROM held_out_pairs RIGHT ANTI JOIN all_weighted_events AS events
    ON held_out_pairs.user_idx = events.user_idx AND held_out_pairs.item_idx = events.item_idx
